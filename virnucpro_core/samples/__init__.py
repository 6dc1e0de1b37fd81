"""Samples: their input files, settings, folders and locks, and the inbox through which files arrive."""
