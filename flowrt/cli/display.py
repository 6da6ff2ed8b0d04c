"""Shows a job while it runs: a live panel on a terminal, else a plain line now and then."""

from __future__ import annotations

import logging
import sys
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from types import TracebackType
from typing import Any, Final, Protocol, Self, TextIO, cast

from rich.console import Console, RenderableType
from rich.live import Live
from rich.panel import Panel
from rich.table import Table
from rich.text import Text

from flowrt.cli.meter import (
    NOTHING,
    View,
    count_text,
    curve,
    held_up_text,
    lag_text,
    line,
    moment_text,
    time_text,
)
from flowrt.cli.options import as_typed
from flowrt.runtime.status import JobState

WIDTH: Final = 78
NARROW: Final = 60
"""A terminal with fewer columns has no room for the figures of a panel: there are lines."""

LINE_SECONDS: Final = 1.0

_COLOURS: Final[dict[JobState, str]] = {
    "starting": "cyan",
    "running": "green",
    "draining": "yellow",
    "restarting": "red",
    "finished": "green",
    "drained": "green",
    "cancelled": "yellow",
    "failed": "red",
}


class Display(Protocol):
    """Where a command says what happens; everything goes to standard error."""

    interval: float
    """How often `show` wants to be called, in seconds."""

    def __enter__(self) -> Self: ...

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None: ...

    def show(self, view: View) -> None:
        """Show a moment in place of the one before."""
        ...

    def say(self, text: str) -> None:
        """Say something that stays."""
        ...


class LiveDisplay:
    """A panel that is drawn anew in its place."""

    interval = 0.125

    def __init__(self, console: Console) -> None:
        self._console = console
        self._live = Live(console=console, auto_refresh=False, redirect_stdout=False)
        self._stdout: TextIO = sys.stdout

    def __enter__(self) -> Self:
        self._stdout = sys.stdout
        self._live.start()
        if self._stdout.isatty():  # else it goes to a file, and must
            sys.stdout = cast(TextIO, AbovePanel(self._console, self._stdout))
        return self

    def __exit__(self, *error: object) -> None:
        sys.stdout.flush()
        sys.stdout = self._stdout
        self._live.stop()

    def show(self, view: View) -> None:
        """See `Display.show`."""
        self._live.update(panel(view, self._console.width), refresh=True)

    def say(self, text: str) -> None:
        """See `Display.say`."""
        say(self._console, text)


class AbovePanel:
    """Standard output while there is a panel: whole lines go above it.

    Rich has one too, but a console that is made on it sees through it and writes into the panel.
    """

    def __init__(self, console: Console, file: TextIO) -> None:
        self._console = console
        self._file = file
        self._begun = ""

    def write(self, text: str) -> int:
        """Show the lines that are whole, keep the rest."""
        *lines, self._begun = (self._begun + text).split("\n")
        if lines:
            self._console.print(Text.from_ansi("\n".join(lines)), soft_wrap=True)
        return len(text)

    def flush(self) -> None:
        """Show a line that was begun."""
        if self._begun:
            self.write("\n")

    def __getattr__(self, name: str) -> Any:
        return getattr(self._file, name)


class LineDisplay:
    """A line for a log, at most one each second and none that says nothing new."""

    interval = 0.25

    def __init__(self, console: Console) -> None:
        self._console = console
        self._last = ""
        self._last_seconds: float | None = None

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def show(self, view: View) -> None:
        """See `Display.show`."""
        if self._last_seconds is not None and view.seconds < self._last_seconds + LINE_SECONDS:
            return
        text = line(view)
        if text != self._last:
            self._last, self._last_seconds = text, view.seconds
            self.say(text)

    def say(self, text: str) -> None:
        """See `Display.say`."""
        say(self._console, text)


class QuietDisplay:
    """Shows nothing; warnings and errors are told all the same."""

    interval = 1.0

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        return None

    def show(self, view: View) -> None:
        """See `Display.show`."""

    def say(self, text: str) -> None:
        """See `Display.say`."""


def say(console: Console, text: str) -> None:
    """Write a text as it is: no markup, and no line broken that a reader might search for.

    Where it cannot be written (the disk of a log is full, nobody reads the pipe), it is left out: a
    flow is worth more than what is said about it.
    """
    with suppress(OSError):
        console.print(Text(text), soft_wrap=True)


class ErrorConsole(Console):
    """Standard error. Once nobody reads it any more, what is said is lost, and the flow goes on."""

    def __init__(self) -> None:
        super().__init__(stderr=True, highlight=False)

    def on_broken_pipe(self) -> None:
        """Go on, where rich would end the process."""
        self.quiet = True


def choose_display(*, quiet: bool) -> Display:
    """Return what fits where standard error goes."""
    console = ErrorConsole()
    if quiet:
        return QuietDisplay()
    has_panel = console.is_terminal and not console.is_dumb_terminal and console.width >= NARROW
    return LiveDisplay(console) if has_panel else LineDisplay(console)


def panel(view: View, width: int) -> RenderableType:
    """Return a moment as a panel of two lines, in a terminal of so many columns."""
    colour = _COLOURS[view.state]
    table = Table.grid(padding=(0, 3), expand=True)
    for _ in range(4):
        table.add_column(ratio=1, no_wrap=True)
    epoch = NOTHING if view.epoch is None else count_text(view.epoch)
    table.add_row(
        _figure("records", count_text(view.records)),
        _figure("per second", count_text(view.rate)),
        _figure("epoch", epoch),
        _figure("lag", lag_text(view.lag)),
    )
    below = Table.grid(expand=True)
    below.add_column(no_wrap=True)
    below.add_column(justify="right", no_wrap=True)
    below.add_row(
        _figure("watermark", moment_text(view.watermark)), Text(curve(view.history), style=colour)
    )
    whole = Table.grid(expand=True)
    whole.add_row(table)
    whole.add_row(below)
    title = Text.assemble((f" {view.name} ", "bold"), ("● ", colour), (f"{view.state} ", colour))
    return Panel(
        whole,
        title=title,
        title_align="left",
        subtitle=Text.assemble(
            (held_up_text(view, " "), "yellow"), (f" {time_text(view.seconds)} ", "dim")
        ),
        subtitle_align="right",
        border_style="dim",
        width=min(width - 2, WIDTH),  # with room for the ^C that a terminal shows
    )


def _figure(name: str, value: str) -> Text:
    return Text.assemble((name, "dim"), " ", (value, "bold"))


class LogHandler(logging.Handler):
    """Writes log records between what is shown.

    But for the error with which a flow ends: the command itself tells it.
    """

    def __init__(self) -> None:
        super().__init__(logging.WARNING)
        self._console = ErrorConsole()
        self.setFormatter(logging.Formatter("%(levelname)s %(name)s: %(message)s"))

    def emit(self, record: logging.LogRecord) -> None:
        """See `logging.Handler.emit`."""
        if hasattr(record, "flow_ended"):
            return
        try:
            text = self.format(record)
            is_ours = record.name.partition(".")[0] == "flowrt"
            say(self._console, as_typed(text) if is_ours else text)
        except Exception:
            self.handleError(record)


@contextmanager
def told_warnings() -> Iterator[None]:
    """Show warnings and errors of every logger, meanwhile."""
    root, handler = logging.getLogger(), LogHandler()
    root.addHandler(handler)
    try:
        yield
    finally:
        root.removeHandler(handler)
