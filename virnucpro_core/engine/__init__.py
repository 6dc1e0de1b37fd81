"""Shards through an encoder; knows no sample."""
