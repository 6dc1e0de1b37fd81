"""VirNucPro as a Dagster asset graph."""
