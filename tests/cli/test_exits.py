"""How a command ends: the exit code, and the error as one paragraph."""

from __future__ import annotations

import io
import sys

import pytest

from flowrt.cli.exits import Exit, exit_code, paragraph, report
from flowrt.contract.errors import (
    CheckpointError,
    ConfigError,
    GraphError,
    InputError,
    LeaseError,
    OperatorError,
)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (ConfigError("x"), Exit.USAGE),
        (GraphError("x"), Exit.USAGE),
        (LeaseError("x"), Exit.OWNED),
        (CheckpointError("x"), Exit.FAILED),
        (InputError("x"), Exit.FAILED),
        (OSError("x"), Exit.FAILED),
    ],
)
def test_the_exit_code_says_who_can_mend_it(error: Exception, code: Exit) -> None:
    assert exit_code(error) is code


def caused(error: Exception, cause: Exception) -> Exception:
    error.__cause__ = cause
    return error


def test_an_error_is_one_paragraph_with_the_type_of_its_cause() -> None:
    error = caused(
        OperatorError("operator 'map-1'\n  failed", operator="map-1"),
        caused(ZeroDivisionError("division by zero"), KeyError("failed")),
    )

    assert paragraph(error) == (
        "OperatorError: operator 'map-1' failed [ZeroDivisionError: division by zero] "
        "[KeyError: 'failed']"
    )


def test_what_a_message_says_already_is_not_said_twice() -> None:
    assert paragraph(caused(ConfigError("cannot read: no such file"), OSError("no such file"))) == (
        "ConfigError: cannot read: no such file [OSError]"
    )


def test_of_a_group_the_error_of_ours_is_told(capsys: pytest.CaptureFixture[str]) -> None:
    group = ExceptionGroup("", [ValueError("y"), ExceptionGroup("", [LeaseError("taken")])])

    assert report(group, with_traceback=False) is Exit.OWNED
    assert capsys.readouterr().err == "flowrt: LeaseError: taken\n"


def test_a_traceback_comes_when_asked_for(capsys: pytest.CaptureFixture[str]) -> None:
    try:
        raise ConfigError("wrong")
    except ConfigError as error:
        report(error, with_traceback=True)

    said = capsys.readouterr().err
    assert "Traceback (most recent call last)" in said
    assert said.endswith("flowrt: ConfigError: wrong\n")


def test_a_terminal_gets_lines_of_its_width(monkeypatch: pytest.MonkeyPatch) -> None:
    class Terminal(io.StringIO):
        def isatty(self) -> bool:
            return True

    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    monkeypatch.setenv("COLUMNS", "60")

    report(ConfigError("many words " * 20), with_traceback=False)

    assert max(map(len, terminal.getvalue().splitlines())) <= 60
