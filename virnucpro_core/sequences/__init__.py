"""Reads sequence files, cuts records into chunks and translates chunks into unique frames."""
