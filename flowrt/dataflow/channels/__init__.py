"""What lies between tasks: bounded channels, and how many records go at once."""
