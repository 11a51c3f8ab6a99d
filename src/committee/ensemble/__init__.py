"""From members to one classifier."""
