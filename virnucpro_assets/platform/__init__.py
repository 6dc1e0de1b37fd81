"""This installation: environment, instance, runs."""
