"""Checkpoints of each version load for ever, and give back what was kept in them."""

from __future__ import annotations

from importlib.metadata import version
from pathlib import Path
from typing import Any

import pytest

from flowrt import Job
from flowrt.testing.scripted_source import ScriptedSource
from flowrt.testing.world import ManualClock
from tests.golden import make
from tests.golden.flow import (
    KEYS,
    NOW_MS,
    VALUES,
    Basket,
    Order,
    Place,
    Point,
    Sinks,
    flow,
    rules,
    script,
)
from tests.journeys.kit import FOLDER, turns
from tests.journeys.kit import Place as Machine

pytestmark = pytest.mark.anyio

VERSIONS = sorted(path for path in make.HERE.iterdir() if (path / "state").is_dir())


@pytest.fixture(params=VERSIONS, ids=lambda path: path.name)
def machine(request: pytest.FixtureRequest) -> Machine:
    """A machine whose disk holds the checkpoints of a version."""
    machine, folder = Machine(clock=ManualClock(NOW_MS)), request.param
    for path in folder.rglob("*"):
        if path.is_file():
            machine.files.replace(
                f"{FOLDER}/{path.relative_to(folder).as_posix()}", path.read_bytes()
            )
    return machine


async def answer(value: Any) -> Any:
    return value


def number_of(key: Any) -> int:
    """The last number of a key: the third round was over few of them."""
    return 3 if key in KEYS[:3] else 2


def wanted(key: Any) -> dict[str, Any]:
    """What each state holds for a key."""
    last = number_of(key)
    all_numbers = [*range(1, last + 1)]
    baskets = {"name 1": Basket(["1"]), "name 0": Basket(["2"])}
    found: dict[str, Any] = {
        "value": last,
        "text": f"number {last}",
        "basket": Basket([f"{last}"], Place("JFK", last)),
        "order": Order(last, Basket(["a"])),
        "numbers": [3] if last == 3 else all_numbers,
        "orders": [Order(number, Basket()) for number in all_numbers],
        "by_name": None if last == 3 else baskets,
        "total": sum(all_numbers),
        "mean": sum(all_numbers) / last,
        "for_a_day": last,
        "for_an_hour": {"hour": last},
        "recent": [Place("JFK", number) for number in all_numbers],
    }
    return found


async def check_states(job: Job, as_of: Any) -> None:
    for key in KEYS:
        for name, value in wanted(key).items():
            found = await job.state("everything", name).get(key, as_of=as_of)
            assert found == value, (name, key)
        assert await job.state("count").get(key, as_of=as_of) == number_of(key)
    anything = await job.state("everything", "anything").get("text", as_of=as_of)
    assert anything is not None
    left = {place: value for place, value in enumerate(VALUES) if place}
    assert {place: repr(v) for place, v in anything.items()} == {
        place: repr(value) for place, value in left.items()
    }
    keys = [repr(key) async for key, _ in job.state("everything", "value").scan(as_of=as_of)]
    assert sorted(keys) == sorted([*map(repr, KEYS), "'short'"])


async def test_every_state_is_as_it_was(machine: Machine) -> None:
    events, changes, sinks = ScriptedSource[Any](script()), ScriptedSource[Any](rules()), Sinks()
    async with machine.start(flow(events, changes, answer, sinks)) as job:
        assert job.status().restored_epoch == 3
        assert job.status().notes == ()
        await check_states(job, "now")
        await check_states(job, "committed")


async def test_the_job_goes_on_as_if_nothing_had_been(machine: Machine) -> None:
    events, changes, sinks = ScriptedSource[Any](script()), ScriptedSource[Any](rules()), Sinks()
    async with machine.start(flow(events, changes, answer, sinks)) as job:
        await events.paused("long")
        # In flight were all that had been asked: they are asked again.
        await turns()
        machine.clock.advance(60_000)
        for source in (events, changes):
            for _ in range(3):
                source.release()
        await machine.finish(job)
    asked = [(key, number) for number in (1, 2) for key in KEYS]
    asked += [*[(key, 3) for key in KEYS[:3]], (KEYS[0], 4), ("new", 5), ("short", 1)]
    assert sorted(map(repr, sinks.answered.rows)) == sorted(map(repr, asked))
    counted = dict(sinks.counted.rows)
    assert counted == {"text": 4, "new": 1}
    by_clock = {key for key, at, _ in sinks.fired.rows if at == NOW_MS + 60_000}
    assert by_clock == {*KEYS, "short"} | by_clock & {"new"}
    in_event_time = {(key, at) for key, at, _ in sinks.fired.rows if at < NOW_MS}
    due = {(key, 10_000 + number) for key in KEYS for number in range(1, number_of(key) + 1)}
    due -= {(key, 10_001) for key in KEYS[:3]}
    assert in_event_time == due | {(KEYS[0], 10_004), ("new", 10_005), ("short", 10_001)}
    # Of the rules either change may come first, but none is forgotten.
    rules_seen = [rules for _, rules in sinks.ruled.rows]
    assert all(dict(rules).keys() == {"limit", "minimum"} for rules in rules_seen)
    assert dict(rules_seen[-1])["limit"] in (Point(5), Point(6))


def test_this_version_is_kept() -> None:
    assert (make.HERE / version("flowrt")).is_dir(), "run python -m tests.golden.make"


def test_the_folders_stay_small() -> None:
    for folder in VERSIONS:
        assert sum(path.stat().st_size for path in Path(folder).rglob("*")) < 200_000
