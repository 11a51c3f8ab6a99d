"""File formats: each module reads the files of one kind into a `RawSet` (assemble.py); readers.py lists them."""
