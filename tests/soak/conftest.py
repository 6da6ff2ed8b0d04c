"""Shows the figures of the soak tests at the end of a test run, whether they failed or not."""

from __future__ import annotations

import pytest

from tests.soak.report import LINES


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    if LINES:
        terminalreporter.section("soak")
        for line in LINES:
            terminalreporter.write_line(line)
