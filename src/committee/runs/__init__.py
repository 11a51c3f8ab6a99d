"""A run from data and recipe to a finished folder, and what is done with finished runs."""
