"""Training members: the loop, where it runs, and what it leaves on disk."""
