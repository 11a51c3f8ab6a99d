"""Committees of small convolutional networks for small labelled images."""
