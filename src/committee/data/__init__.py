"""Labelled images: reading, splitting, augmenting and summing them up."""
