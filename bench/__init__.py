"""Measurements: one question a file, each answered as a ratio against something measured in the same run."""
