"""The web server of `virnucpro ui`: Dagster's web UI, and the results of the samples beside it."""
