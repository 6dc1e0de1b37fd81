"""Finds usable GPUs and reserves each for one process at a time."""
