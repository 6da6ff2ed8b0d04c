"""The figures of the soak tests that ran, for the summary at the end."""

from __future__ import annotations

LINES: list[str] = []
