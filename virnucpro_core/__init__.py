"""Exact and fast viral calling on GPUs; knows nothing of the orchestrator."""

__version__ = "0.1.0"
