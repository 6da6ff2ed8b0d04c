"""Shows the figures of the crash programme at the end of a test run, whether it failed or not."""

from __future__ import annotations

import pytest

from tests.journeys.crash.report import FIGURES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if FIGURES:
        terminalreporter.section("crash programme")
        for name, figures in FIGURES.items():
            terminalreporter.write_line(f"{name}: {figures}")
