"""The steps that the assets call."""
