"""Live state against plain dicts, while records stream, epochs pass and others read too."""

from __future__ import annotations

from collections import defaultdict
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from hypothesis import given, settings
from hypothesis import strategies as st

import flowrt
from flowrt import Flow, ListState, LiveState, MapState, MemorySink, ValueState
from flowrt.testing.script import PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import Place, turns, until

pytestmark = pytest.mark.anyio

KEYS = [0, 1, 2, "a", "b", ("c", 1), 2.5, "kept"]
CHANGES = st.tuples(
    st.sampled_from(KEYS[:-1]), st.sampled_from(["write", "write", "write", "clear", "pause"])
)
HISTORIES = st.lists(st.lists(CHANGES, max_size=12), min_size=1, max_size=4)
KINDS = ("value", "items", "names")


class Model:
    """What the operator keeps, as dicts: now, and at each cut."""

    def __init__(self) -> None:
        self.now: dict[str, dict[Any, Any]] = defaultdict(dict)
        self.cuts: dict[int, list[dict[str, dict[Any, Any]]]] = defaultdict(list)
        self.of_subtask: dict[Any, int] = {}

    def cut(self, subtask: int) -> None:
        mine = {
            kind: {key: v for key, v in self.now[kind].items() if self.of_subtask[key] == subtask}
            for kind in KINDS
        }
        self.cuts[subtask].append(mine)

    def at(self, epoch: int, kind: str) -> dict[Any, Any]:
        return {k: v for cuts in self.cuts.values() for k, v in cuts[epoch - 1][kind].items()}


def flow_of(model: Model, source: flowrt.Source[Any], parallelism: int) -> Flow:
    class Keeper(flowrt.Operator[tuple[Any, str, int], None]):
        """Keeps the same in its state and in the model; waits in between for some records."""

        value = ValueState(int)
        items = ListState(int)
        names = MapState(str, int)

        def open(self, ctx: flowrt.Context) -> None:
            self.subtask = ctx.subtask

        async def process(self, record: tuple[Any, str, int], ctx: flowrt.Context) -> None:
            key, what, number = record
            if what == "pause":
                await checkpoint()
            model.of_subtask[key] = ctx.subtask
            if what == "clear":
                for state in (self.value, self.items, self.names):
                    state.clear()
                for kind in KINDS:
                    model.now[kind].pop(key, None)
            else:
                self.value.set(number)
                self.items.add(number)
                self.names.put(f"{number % 3}", number)
                model.now["value"][key] = number
                model.now["items"][key] = [*model.now["items"].get(key, []), number]
                model.now["names"][key] = {
                    **model.now["names"].get(key, {}),
                    f"{number % 3}": number,
                }

        def snapshot(self) -> None:
            model.cut(self.subtask)

    flow = Flow("kept")
    keyed = flow.source(source, name="in").key_by(lambda record: record[0])
    kept = keyed.process(Keeper, name="keeper", parallelism=parallelism)
    kept.sink(MemorySink(), name="out", parallelism=1)
    return flow


async def read_all_the_time(job: flowrt.Job, model: Model, done: anyio.Event) -> None:
    """Read one key, and scan, for as long as records come; each is right when it is read."""
    states: dict[str, LiveState[Any, Any]] = {kind: job.state("keeper", kind) for kind in KINDS}
    while not done.is_set():
        for kind, state in states.items():
            for key in KEYS:
                assert await state.get(key) == model.now[kind].get(key)
            given = []
            async for key, value in state.scan():
                assert value == model.now[kind][key]
                given.append(key)
                await checkpoint()
            assert len(given) == len(set(given)), "no key comes twice"
            assert "kept" in given or not job.metrics().records_in, "nor is one missed"


async def check_committed(job: flowrt.Job, model: Model) -> None:
    for kind in KINDS:
        state = job.state("keeper", kind)
        before = job.status().epoch
        found = {key: value async for key, value in state.scan(as_of="committed")}
        one = await state.get("kept", as_of="committed")
        if job.status().epoch == before is not None:
            assert found == model.at(before, kind)
            assert one == model.at(before, kind).get("kept")


@pytest.mark.parametrize("parallelism", [1, 2, 3, 4])
@settings(max_examples=8)
@given(histories=HISTORIES)
async def test_every_read_is_right(parallelism: int, histories: list[list[Any]]) -> None:
    model, place, number = Model(), Place(), 0
    script: list[Any] = [("kept", "write", 0), PAUSE]
    for history in histories:
        for key, what in history:
            number += 1
            script.append((key, what, number))
            script.append(("kept", "write", number))
        script.append(PAUSE)
    source = ScriptedSource[Any](script, chunk=3)
    async with (
        place.start(flow_of(model, source, parallelism), keep_checkpoints=1) as job,
        anyio.create_task_group() as group,
    ):
        await source.paused()
        await until(lambda: "kept" in model.now["value"])
        done = anyio.Event()
        group.start_soon(read_all_the_time, job, model, done)
        for _ in histories:
            source.release()
            await turns(20)
            await place.epoch(job)
            await check_committed(job, model)
        await source.paused()
        await turns()
        for kind in KINDS:
            state = job.state("keeper", kind)
            assert {key: value async for key, value in state.scan()} == model.now[kind]
        done.set()
