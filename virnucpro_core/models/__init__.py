"""Which weights, from where."""
