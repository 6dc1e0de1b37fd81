"""Runs that a command starts."""
