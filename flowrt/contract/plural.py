"""Words behind a number, for messages."""

from __future__ import annotations


def plural(count: int, word: str) -> str:
    """Return a word as it stands behind a number: "part" behind 1, and else "parts"."""
    if count == 1:
        return word
    return f"{word[:-1]}ies" if word.endswith("y") else f"{word}s"
