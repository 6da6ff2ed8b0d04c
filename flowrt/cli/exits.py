"""How a command ends: exit codes that a script can tell apart, and errors as one paragraph."""

from __future__ import annotations

import shutil
import sys
import textwrap
import traceback
from contextlib import suppress
from enum import IntEnum

from flowrt.cli import STOPPED
from flowrt.cli.options import as_typed
from flowrt.contract.errors import CheckpointError, ConfigError, GraphError, LeaseError
from flowrt.runtime.errors import single


class Exit(IntEnum):
    """Exit codes of every command."""

    OK = 0
    """The input ended, or the flow was drained on request."""
    FAILED = 1
    """The flow failed, a checkpoint is damaged, or a dead letter cannot be fed back."""
    USAGE = 2
    """The command, the flow or an option is wrong, such as a folder that is none; nothing ran."""
    OWNED = 3
    """Another instance owns the checkpoint folder, or it was deleted while the flow ran."""
    CANCELLED = 130
    """Stopped at once on request; what was committed stays."""


def exit_code(error: BaseException) -> Exit:
    """Return the exit code for an error."""
    if isinstance(error, LeaseError):
        return Exit.OWNED
    return Exit.USAGE if isinstance(error, ConfigError | GraphError) else Exit.FAILED


def paragraph(error: BaseException) -> str:
    """Return an error as one paragraph: its class, its message, the class of its cause."""
    said = _one_line(error)
    if isinstance(error, ConfigError | CheckpointError):
        said = as_typed(said)
    text = f"{type(error).__name__}: {said}"
    seen = {id(error)}
    cause = error.__cause__
    while cause is not None and id(cause) not in seen:
        seen.add(id(cause))
        kind, said = type(cause).__name__, _one_line(cause)
        if said not in text or not said:
            text += f" [{kind}: {said}]"
        elif kind not in text:
            text += f" [{kind}]"
        cause = cause.__cause__
    return text


def report(error: BaseException, *, with_traceback: bool) -> Exit:
    """Write an error to standard error; return the exit code to leave with."""
    error = single(error)
    if with_traceback:
        traceback.print_exception(error, file=sys.stderr)
    _write(f"flowrt: {paragraph(error)}")
    return exit_code(error)


def report_stop() -> Exit:
    """Say that Ctrl-C ended the command; return the exit code to leave with."""
    _write(STOPPED)
    return Exit.CANCELLED


def _one_line(error: BaseException) -> str:
    return " ".join(str(error).split())


def _write(text: str) -> None:
    stream = sys.stderr
    # Broken into lines for a reader; left whole for a log, where a line is found by its words.
    if stream.isatty():
        width = max(shutil.get_terminal_size().columns, 40)
        text = textwrap.fill(text, width, break_long_words=False, break_on_hyphens=False)
    with suppress(OSError):  # a full disk, a pipe that nobody reads: the exit code says it too
        stream.write(f"{text}\n")
        stream.flush()
