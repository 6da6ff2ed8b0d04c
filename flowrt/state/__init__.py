"""Keyed state behind the handles: tables in memory, how values and keys are encoded, key groups."""
