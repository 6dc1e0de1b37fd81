"""What belongs to this installation: its settings, its Dagster instance, and which runs are its own."""
