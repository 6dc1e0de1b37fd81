"""The seven assets."""
