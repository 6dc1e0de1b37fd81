"""From scores to what people read."""
