"""Sensors, schedules and the run queue: what starts runs without a person."""
