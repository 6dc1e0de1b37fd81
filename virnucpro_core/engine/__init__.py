"""Computes the embeddings of shards: loading, computing, writing, balancing lanes. Knows no sample."""
