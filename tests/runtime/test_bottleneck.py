"""Who holds up the others, from what each waits for."""

from __future__ import annotations

from flowrt.runtime.bottleneck import Pressure, Subtask, bottleneck


def line(*pressures: tuple[float, float, float]) -> dict[Subtask, Pressure]:
    """Tasks one behind the other: busy, blocked, and how much they hold up."""
    names = [(f"{index}", 0) for index in range(len(pressures))]
    return {
        name: Pressure(*pressure, readers=names[index + 1 : index + 2])
        for index, (name, pressure) in enumerate(zip(names, pressures, strict=True))
    }


def test_nobody_where_nobody_waits() -> None:
    assert bottleneck(line((1.0, 0.0, 0.0), (0.4, 0.05, 0.02), (0.1, 0.0, 0.05))) is None
    assert bottleneck({}) is None


def test_the_last_of_those_that_are_waited_for() -> None:
    assert bottleneck(line((0.0, 1.0, 0.0), (0.2, 0.8, 1.0), (1.0, 0.0, 0.8))) == ("2", 0)


def test_one_that_is_slow_and_hardly_blocked_is_it_itself() -> None:
    assert bottleneck(line((0.1, 0.9, 0.0), (0.95, 0.05, 0.9), (0.9, 0.0, 0.05))) == ("1", 0)


def test_of_two_readers_the_one_that_is_waited_for() -> None:
    readers = [("fast", 0), ("slow", 0)]
    found = bottleneck(
        {
            ("source", 0): Pressure(0.1, 0.9, 0.0, readers),
            ("fast", 0): Pressure(0.1, 0.0, 0.0),
            ("slow", 0): Pressure(1.0, 0.0, 0.9),
        }
    )

    assert found == ("slow", 0)


def test_the_subtask_that_got_all_the_keys() -> None:
    readers = [("step", 0), ("step", 1)]
    found = bottleneck(
        {
            ("source", 0): Pressure(0.1, 0.9, 0.0, readers),
            ("step", 0): Pressure(0.1, 0.0, 0.0),
            ("step", 1): Pressure(1.0, 0.0, 0.9),
        }
    )

    assert found == ("step", 1)


def test_one_blocked_by_its_own_turns_is_still_the_one_that_is_waited_for() -> None:
    assert bottleneck(line((0.1, 0.9, 0.0), (0.7, 0.3, 0.9), (0.2, 0.0, 0.0))) == ("1", 0)


def test_whoever_has_the_loop_while_those_before_wait_for_their_turn() -> None:
    assert bottleneck(line((0.1, 0.9, 0.0), (0.2, 0.0, 0.0), (0.7, 0.0, 0.0))) == ("2", 0)


def test_a_source_that_does_most_itself_waits_for_nobody() -> None:
    assert bottleneck(line((0.8, 0.2, 0.0), (0.2, 0.0, 0.0))) is None


def test_whoever_has_the_loop_is_behind_one_that_waits() -> None:
    found = bottleneck(
        {
            ("source", 0): Pressure(0.1, 0.9, 0.0, [("step", 0)]),
            ("step", 0): Pressure(0.2, 0.0, 0.0, [("sink", 0)]),
            ("sink", 0): Pressure(0.1, 0.0, 0.0),
            ("other", 0): Pressure(0.7, 0.0, 0.0),
        }
    )

    assert found == ("step", 0)
