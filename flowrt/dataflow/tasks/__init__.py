"""Tasks that take from channels: operators, calls under way, sinks."""
