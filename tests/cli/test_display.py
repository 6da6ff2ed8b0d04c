"""How a job is shown: a panel on a terminal, lines elsewhere, nothing when quiet."""

from __future__ import annotations

import io
import logging
import re
import sys
from dataclasses import replace

import pytest
from rich.console import Console

from flowrt.cli.display import (
    Display,
    LineDisplay,
    LiveDisplay,
    QuietDisplay,
    choose_display,
    panel,
    told_warnings,
)
from flowrt.cli.meter import View


def view(seconds: float, records: int = 0) -> View:
    return View("flights", "running", 3, records, 4_000.0, None, {}, seconds, (1.0, 2.0))


def console(*, terminal: bool) -> tuple[Console, io.StringIO]:
    text = io.StringIO()
    return Console(file=text, force_terminal=terminal, width=100, highlight=False), text


def test_lines_come_once_a_second_and_only_with_news() -> None:
    screen, text = console(terminal=False)

    with LineDisplay(screen) as display:
        for seconds, records in [(0.0, 1), (0.5, 2), (0.9, 3), (1.0, 4), (2.0, 4), (3.0, 5)]:
            display.show(view(seconds, records))
        display.say("[this] is no markup")

    lines = text.getvalue().splitlines()
    assert [line.split(", ")[1] for line in lines[:-1]] == ["1 record", "4 records", "5 records"]
    assert lines[-1] == "[this] is no markup"


def test_long_lines_are_not_broken() -> None:
    screen, text = console(terminal=False)

    LineDisplay(screen).say("word " * 100)

    assert text.getvalue().count("\n") == 1


def test_the_panel_shows_every_figure() -> None:
    screen, text = console(terminal=True)

    with LiveDisplay(screen) as display:
        display.show(view(61.0, 12_345))
        display.say("said meanwhile")

    shown = text.getvalue()
    for part in ("flights", "running", "12,345", "4,000", "1:01", "said meanwhile", "▅█"):
        assert part in shown


def test_the_panel_names_whom_the_others_wait_for() -> None:
    screen, text = console(terminal=True)

    with LiveDisplay(screen) as display:
        display.show(replace(view(61.0), bottleneck="score"))

    assert "held up by score" in text.getvalue()


def test_quiet_shows_nothing_but_warnings(capsys: pytest.CaptureFixture[str]) -> None:
    with QuietDisplay() as display, told_warnings():
        display.show(view(0.0))
        display.say("nobody hears this")
        logging.getLogger("somebody").info("nor this")
        logging.getLogger("somebody").warning("the disk is slow")
        logging.getLogger("flowrt").error("told elsewhere", extra={"flow_ended": "flights"})

    assert capsys.readouterr().err == "WARNING somebody: the disk is slow\n"


@pytest.mark.parametrize(("quiet", "kind"), [(True, QuietDisplay), (False, LineDisplay)])
def test_without_a_terminal_there_are_lines(quiet: bool, kind: type[Display]) -> None:
    assert isinstance(choose_display(quiet=quiet), kind)


def test_on_a_terminal_there_is_a_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")

    assert isinstance(choose_display(quiet=False), LiveDisplay)


def test_warnings_of_ours_name_options_as_they_were_typed(
    capsys: pytest.CaptureFixture[str],
) -> None:
    with told_warnings():
        logging.getLogger("flowrt").warning("lost in spite of delivery=%r", "exactly_once")
        logging.getLogger("theirs").warning("restart='never'")

    said = capsys.readouterr().err
    assert said.splitlines() == [
        "WARNING flowrt: lost in spite of --delivery exactly_once",
        "WARNING theirs: restart='never'",
    ]


@pytest.mark.parametrize(
    ("name", "value"), [("COLUMNS", "50"), ("TERM", "dumb"), ("TERM", "unknown")]
)
def test_where_a_panel_would_not_be_readable_there_are_lines(
    monkeypatch: pytest.MonkeyPatch, name: str, value: str
) -> None:
    monkeypatch.setenv("FORCE_COLOR", "1")
    monkeypatch.setenv("TERM", "xterm")
    monkeypatch.setenv("COLUMNS", "80")
    monkeypatch.setenv(name, value)

    assert isinstance(choose_display(quiet=False), LineDisplay)


def test_the_panel_leaves_room_for_what_the_terminal_writes_itself() -> None:
    text = io.StringIO()
    screen = Console(file=text, width=60)

    screen.print(panel(view(0.0), 60))

    assert max(len(line.rstrip()) for line in text.getvalue().splitlines()) == 58


def test_a_log_that_nobody_reads_does_not_end_the_flow(monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(io.StringIO):
        def write(self, text: str) -> int:
            raise BrokenPipeError

    monkeypatch.setattr(sys, "stderr", Broken())

    choose_display(quiet=False).say("nobody hears it")


def test_what_a_flow_prints_goes_above_the_panel(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    stdout = Terminal()
    monkeypatch.setattr(sys, "stdout", stdout)
    screen, text = console(terminal=True)

    with LiveDisplay(screen) as display:
        display.show(view(0.0))
        print("a line", "and", sep="\n", end=" its end")
        assert sys.stdout.isatty()
        Console(file=sys.stdout).print("[bold]by rich[/bold]")
        print("begun", end="")

    assert sys.stdout is stdout
    assert stdout.getvalue() == ""
    shown = re.sub(r"\x1b\[[\d;?]*[A-Za-z]", "", text.getvalue())
    for line in ("a line\n", "and its endby rich\n", "begun\n"):
        assert line in shown


def test_what_goes_to_a_file_stays_out_of_the_panel(capsys: pytest.CaptureFixture[str]) -> None:
    screen, text = console(terminal=True)

    with LiveDisplay(screen):
        print("for the file")

    assert capsys.readouterr().out == "for the file\n"
    assert "for the file" not in text.getvalue()
