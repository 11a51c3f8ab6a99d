"""The version, in one place: a change of it says that the same recipe may train other weights."""

version = "0.4.1"
