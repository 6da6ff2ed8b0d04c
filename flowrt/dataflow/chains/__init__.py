"""The operators of one task: written as one function, with timers, event time and policies."""
