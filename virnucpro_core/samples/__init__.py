"""What a sample is, before anything is computed."""
