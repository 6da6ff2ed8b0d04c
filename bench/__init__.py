"""Measurements: one question a file, answered as a ratio within the same run."""
