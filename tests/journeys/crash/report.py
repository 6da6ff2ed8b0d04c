"""The figures of the crash programmes that ran, for the summary at the end."""

from __future__ import annotations

FIGURES: dict[str, object] = {}
