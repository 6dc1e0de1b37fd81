"""What lies on disk: whole, digested, locked."""
