"""The assets: sequences, embeddings, calls, and what stays of them on disk."""
