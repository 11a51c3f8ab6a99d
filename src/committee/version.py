"""The version, and since which one the weights are the same."""

version = "0.10.0"

trains_like = "0.8.0"
"""The oldest version that trains the same members bit for bit; part of a run's identity. Set it to `version` whenever a
change may give a recipe other weights."""
