"""GPUs that one may use, one process each."""
