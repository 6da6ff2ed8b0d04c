"""The two ends of the river: sources and sinks, one file for each system."""
