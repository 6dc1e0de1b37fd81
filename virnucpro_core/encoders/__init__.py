"""Token ids in, pooled rows out."""
