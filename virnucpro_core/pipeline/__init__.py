"""The steps of a prediction, from input files to results. The Dagster assets call them."""
