"""Describing objects as JSON and writing files."""
