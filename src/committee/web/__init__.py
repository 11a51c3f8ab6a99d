"""The page: its files, and what of a run it shows."""
