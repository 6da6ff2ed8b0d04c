"""Events that a service pushes, with a journal or without."""
