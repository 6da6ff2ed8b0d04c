"""The figures of the crash programmes that ran, for the summary at the end."""

from __future__ import annotations

from tests.journeys.crash.programme import Figures

FIGURES: dict[str, Figures] = {}
