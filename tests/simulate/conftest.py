"""Shows the figures of the simulation at the end of a test run, whether it failed or not."""

from __future__ import annotations

import pytest

from tests.simulate.report import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("simulation")
        for figures in FIGURES:
            terminalreporter.write_line(str(figures))
