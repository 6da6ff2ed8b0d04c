"""The words: what a user may implement and what travels between the parts.

Imports nothing of ours.
"""
