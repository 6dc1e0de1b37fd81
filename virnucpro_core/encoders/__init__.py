"""The encoders ESM-2 and DNABERT-S: tokenize sequences, pack them into batches, compute one row for each."""
