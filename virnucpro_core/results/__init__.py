"""Turn the scores of a sample into tables, calls and a report, and copy them to the user's folder."""
