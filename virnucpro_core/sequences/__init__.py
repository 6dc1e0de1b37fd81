"""From a file to unique frames."""
