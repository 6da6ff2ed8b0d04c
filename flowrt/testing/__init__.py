"""The public test kit: a world under control, and the laws of operators, sources and sinks."""
