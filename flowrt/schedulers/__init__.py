"""Policies that decide when an epoch ends. Pure: time comes in, a decision goes out."""
