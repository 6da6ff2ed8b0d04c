"""Options of `flowrt run`: what is typed is read, and messages of the library say it as typed."""

from __future__ import annotations

from collections.abc import Callable
from typing import get_type_hints

import pytest

from flowrt.cli.options import as_typed, parse_epoch_interval, parse_restart
from flowrt.contract.errors import ConfigError
from flowrt.contract.retry import ExponentialBackoff, FixedDelay, NoRestart
from flowrt.runtime.options import JobOptions, StartOptions


def test_restart_strategies_are_read() -> None:
    assert parse_restart("none") == NoRestart()
    assert parse_restart("backoff") == ExponentialBackoff()
    assert parse_restart("fixed:500ms") == FixedDelay("500ms", 3)
    assert parse_restart("fixed:10s:5") == FixedDelay("10s", 5)


@pytest.mark.parametrize(
    ("typed", "message"),
    [
        ("", "--restart '' is unknown: choose none, backoff"),
        ("fixed", "--restart 'fixed' is unknown"),
        ("fixed:10s:", "--restart 'fixed:10s:' is unknown"),
        ("fixed:10s:many", "--restart 'fixed:10s:many' is unknown"),
        ("fixed:soon", "--restart fixed:soon: 'soon' is not a duration: write a number and its"),
        ("fixed:10s:0", "--restart fixed:10s:0 never tries again: choose none for that"),
    ],
)
def test_a_wrong_strategy_is_told_in_words_of_the_shell(typed: str, message: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_restart(typed)

    assert str(error.value).startswith(message)
    assert "timedelta" not in str(error.value)


def test_an_epoch_interval_is_read() -> None:
    assert parse_epoch_interval("1.5s").epoch_interval_ms == 1_500


@pytest.mark.parametrize("typed", ["often", "", "1", "-1s", "1 year", "9" * 400 + "d"])
def test_a_wrong_interval_names_the_option(typed: str) -> None:
    with pytest.raises(ConfigError) as error:
        parse_epoch_interval(typed)

    told = f"--epoch-interval {typed!r} is not a duration: write a number and its unit, ms, s, m, "
    assert str(error.value).startswith(told)


def test_an_interval_of_nothing_names_the_option() -> None:
    with pytest.raises(ConfigError, match="--epoch-interval 0ms is too short: at least 1ms"):
        parse_epoch_interval("0ms")


@pytest.mark.parametrize(
    ("message", "typed"),
    [
        ("take it over (take_over=True) if", "take it over (--take-over) if"),
        ("pass checkpoints=..., or wait", "pass --checkpoints, or wait"),
        ("checkpoints='' is no folder", "--checkpoints '' is no folder"),
        ("leave restore=... out", "leave --restore out"),
        ("restart=... needs a folder", "--restart needs a folder"),
        ("or delivery='at_most_once' if", "or --delivery at_most_once if"),
        (
            "let it go: allow_dropped_state=['a', 'b.c']",
            "let it go: --allow-dropped-state a --allow-dropped-state b.c",
        ),
    ],
)
def test_options_of_start_become_those_of_the_command(message: str, typed: str) -> None:
    assert as_typed(message) == typed


@pytest.mark.parametrize(
    "message", ["give it name='counts'", "pass watch=True", "no_restore=True", "the epoch=3"]
)
def test_what_stands_in_the_code_of_the_flow_stays(message: str) -> None:
    assert as_typed(message) == message


WRONG: list[Callable[[], JobOptions]] = [
    lambda: JobOptions(delivery="exactly_once"),
    lambda: JobOptions(delivery="at_most_once", checkpoints="kept"),
    lambda: JobOptions(restart=FixedDelay()),
    lambda: JobOptions(restore="saved"),
    lambda: JobOptions(take_over=True),
    lambda: JobOptions(checkpoints=""),
    lambda: JobOptions(checkpoints="kept", restore=""),
]


def test_no_option_is_told_as_python_has_it() -> None:
    for make in WRONG:
        with pytest.raises(ConfigError) as error:
            make()
        said = as_typed(str(error.value))
        assert said != str(error.value)
        assert not [name for name in get_type_hints(StartOptions) if f"{name}=" in said], said
