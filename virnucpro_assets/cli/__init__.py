"""The command line `virnucpro`."""
