"""File formats: each module reads one kind of file into a `RawSet` (assemble.py)."""
