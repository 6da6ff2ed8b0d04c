"""Live state: what a job keeps for its keys, read by the service around it, whatever happens."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import anyio
import pytest

import flowrt
from flowrt import (
    AggregatingState,
    CheckpointError,
    ConfigError,
    FixedDelay,
    Flow,
    ListState,
    LiveState,
    MapState,
    MemorySink,
    ReducingState,
    StateError,
    ValueState,
)
from flowrt.testing.recording_sink import RecordingSink
from flowrt.testing.script import FAIL, PAUSE
from flowrt.testing.scripted_source import ScriptedSource
from tests.journeys.kit import FOLDER, Place, turns, until

pytestmark = pytest.mark.anyio

BOTH: list[Any] = ["now", "committed"]


@dataclass
class Account:
    balance: int
    notes: list[str]


class Everything(flowrt.Operator[tuple[Any, int], None]):
    """Keeps each kind of state for a key."""

    account = ValueState(Account)
    seen = ListState(int)
    by_parity = MapState(str, int)
    largest = ReducingState(max, int)
    mean: AggregatingState[int, tuple[int, int], float] = AggregatingState(
        lambda: (0, 0), lambda sums, value: (sums[0] + 1, sums[1] + value), lambda s: s[1] / s[0]
    )

    def process(self, value: tuple[Any, int], ctx: flowrt.Context) -> None:
        number = value[1]
        if number < 0:
            for state in (self.account, self.seen, self.by_parity, self.largest, self.mean):
                state.clear()
            return
        self.account.set(Account(number, [f"got {number}"]))
        self.seen.add(number)
        self.by_parity.put("odd" if number % 2 else "even", number)
        self.largest.add(number)
        self.mean.add(number)


def flow_of(
    source: flowrt.Source[Any], *, parallelism: int = 1, sink: flowrt.Sink[Any] | None = None
) -> Flow:
    flow = Flow("accounts", parallelism=parallelism)
    keyed = flow.source(source, name="in", parallelism=1).key_by(lambda pair: pair[0])
    keyed.process(Everything, name="everything").sink(MemorySink(), name="out")
    keyed.count(name="counts").sink(sink or MemorySink[Any](), name="counted")
    keyed.aggregate(
        lambda: (0, 0), lambda sums, pair: (sums[0] + pair[1], sums[1] + 1), lambda s: s[0] / s[1],
        name="mean",
    ).sink(MemorySink(), name="means")  # fmt: skip
    return flow


async def scanned(state: LiveState[Any, Any], **options: Any) -> dict[Any, Any]:
    pairs = [pair async for pair in state.scan(**options)]
    assert len(dict(pairs)) == len(pairs), "a key comes once"
    return dict(pairs)


@pytest.mark.parametrize("parallelism", [1, 3])
async def test_every_kind_of_state_now_and_as_of_the_last_epoch(parallelism: int) -> None:
    place = Place()
    source = ScriptedSource[Any]([("a", 1), ("a", 4), ("b", 7), PAUSE, ("a", 9), ("b", -1), PAUSE])
    wanted: dict[str, list[Any]] = {
        "account": [Account(4, ["got 4"]), Account(7, ["got 7"]), Account(9, ["got 9"])],
        "seen": [[1, 4], [7], [1, 4, 9]],
        "by_parity": [{"odd": 1, "even": 4}, {"odd": 7}, {"odd": 9, "even": 4}],
        "largest": [4, 7, 9],
        "mean": [2.5, 7.0, 14 / 3],
    }
    async with place.start(flow_of(source, parallelism=parallelism)) as job:
        await source.paused()
        assert await job.state("counts").get("a", as_of="committed") is None
        assert await scanned(job.state("counts"), as_of="committed") == {}
        await place.epoch(job)
        for name, (a, b, _) in wanted.items():
            state = job.state("everything", name)
            for as_of in BOTH:
                assert await state.get("a", as_of=as_of) == a
                assert await state.get("nobody", "nothing", as_of=as_of) == "nothing"
                assert await scanned(state, as_of=as_of) == {"a": a, "b": b}
                assert len(await scanned(state, as_of=as_of, limit=1)) == 1
        source.release()
        await until(lambda: job.metrics().records_in == 5)
        await turns()
        for name, (a, b, later) in wanted.items():
            state = job.state("everything", name)
            assert await scanned(state) == {"a": later}
            assert await scanned(state, as_of="committed") == {"a": a, "b": b}
        assert await scanned(job.state("counts")) == {"a": 3, "b": 2}
        assert await scanned(job.state("mean")) == {"a": 14 / 3, "b": 3.0}
        assert await job.state("mean", "aggregate").get("b", as_of="committed") == 7.0
        await place.epoch(job)
        assert await scanned(job.state("everything", "seen"), as_of="committed") == {"a": [1, 4, 9]}


async def test_what_is_returned_is_the_callers_own() -> None:
    place, source = Place(), ScriptedSource[Any]([("a", 1), PAUSE])
    async with place.start(flow_of(source)) as job:
        await source.paused()
        await turns()
        for name in ("account", "seen", "by_parity"):
            state = job.state("everything", name)
            value = await state.get("a")
            before = repr(value)
            if isinstance(value, Account):
                value.notes.append("changed from outside")
            else:
                assert value is not None
                value.clear()
            assert repr(await state.get("a")) == before


@pytest.mark.parametrize("parallelism", [1, 4])
async def test_equal_keys_are_one_key(parallelism: int) -> None:
    place, source = (
        Place(),
        ScriptedSource[Any]([(1, 5), (True, 6), (1.0, 7), (("x", 1), 8), PAUSE]),
    )
    async with place.start(flow_of(source, parallelism=parallelism)) as job:
        await source.paused()
        await place.epoch(job)
        for as_of in BOTH:
            for key in (1, 1.0, True):
                assert await job.state("counts").get(key, as_of=as_of) == 3
            assert await job.state("counts").get(("x", True), as_of=as_of) == 1
        with pytest.raises(StateError, match="the key"):
            await job.state("counts").get(float("nan"))


async def test_what_there_is_not_is_refused_with_a_list_of_what_there_is() -> None:
    place, source = Place(), ScriptedSource[Any]([PAUSE])
    async with place.start(flow_of(source), checkpoints=None) as job:
        with pytest.raises(ConfigError, match="'everything', 'counts', 'mean'"):
            job.state("count")
        with pytest.raises(ConfigError, match="'account', 'seen', 'by_parity', 'largest', 'mean'"):
            job.state("everything", "sen")
        with pytest.raises(ConfigError, match="not just one state"):
            job.state("everything")
        with pytest.raises(ConfigError, match="no state 'x'; its states are: 'count'"):
            job.state("counts", "x")
        with pytest.raises(ConfigError, match="as_of='before'"):
            await job.state("counts").get("a", as_of="before")  # type: ignore[arg-type]
        with pytest.raises(ConfigError, match="keeps no checkpoints"):
            await job.state("counts").get("a", as_of="committed")


async def test_a_functions_state_by_its_declaration_and_once_used_by_its_name() -> None:
    total = ValueState(int, default=0, name="total")

    def add(value: tuple[str, int], ctx: flowrt.Context) -> None:
        ctx.state(total).set(ctx.state(total).get() + value[1])

    def flow(source: flowrt.Source[Any]) -> Flow:
        flow = Flow("sums")
        keyed = flow.source(source, name="in").key_by(lambda pair: pair[0])
        keyed.process(add, name="sum").sink(MemorySink(), name="out")
        return flow

    place, source = Place(), ScriptedSource[Any]([("a", 1), PAUSE])
    async with place.start(flow(source)) as job:
        await source.paused()
        await turns()
        assert await job.state("sum").get("a") == 1
        assert await job.state("sum", "total").get("a") == 1
        assert await job.state("sum", total).get("a") == 1
        with pytest.raises(ConfigError, match="its states are: 'total'"):
            await job.state("sum", "all").get("a")
        await job.drain()

    source = ScriptedSource[Any]([("a", 1), PAUSE])
    async with place.start(flow(source)) as job:  # restored, and no record comes
        assert await job.state("sum", total).get("a") == 1
        assert await job.state("sum", total).get("b", 0) == 0
        assert await scanned(job.state("sum", total)) == {"a": 1}
        with pytest.raises(ConfigError, match="pass the declaration itself"):
            await job.state("sum").get("a")


async def test_now_waits_while_the_job_restarts_and_is_over_with_it() -> None:
    place = Place()
    source = ScriptedSource[Any](
        [("a", 1), PAUSE, ("a", 1), PAUSE, FAIL, ("a", 1), PAUSE, ("a", 1)]
    )
    async with place.start(flow_of(source), restart=FixedDelay("1s")) as job:
        counts = job.state("counts")
        await source.paused()
        await place.epoch(job)
        source.release()
        await until(lambda: job.metrics().records_in == 2)
        await turns()
        assert await counts.get("a") == 2
        scan = counts.scan()
        assert await anext(scan) == ("a", 2)
        source.release()
        await until(lambda: job.status().state == "restarting")
        assert await counts.get("a", as_of="committed") == 1
        with pytest.raises(StateError, match="scan again"):
            await anext(scan)
        got: list[Any] = []

        async def ask() -> None:
            got.append(await counts.get("a"))

        async with anyio.create_task_group() as group:
            group.start_soon(ask)
            await turns()
            assert got == []
            place.clock.advance(1_000)
        assert got[0] in (1, 2, 3)  # of the new attempt, which reads on from the epoch
        await until(lambda: job.metrics().records_in == 3)
        await turns()
        assert await counts.get("a") == 3
        source.release()
        await place.finish(job)
        with pytest.raises(StateError, match="is finished"):
            await counts.get("a")
        assert await counts.get("a", as_of="committed") == 4
        assert await scanned(counts, as_of="committed") == {"a": 4}
        assert await scanned(job.state("everything", "seen"), as_of="committed") == {"a": [1] * 4}


async def test_the_epoch_that_a_deciding_sink_committed_counts() -> None:
    place = Place()
    source = ScriptedSource[Any]([("a", 1), PAUSE, ("a", 1), PAUSE])
    sink = RecordingSink[Any](kind="deciding")
    release = anyio.Event()
    commit: Callable[..., Any] = sink.commit

    async def slow(*arguments: Any) -> None:
        if arguments[0] == 2:
            await release.wait()
        await commit(*arguments)

    vars(sink)["commit"] = slow
    async with place.start(flow_of(source, sink=sink)) as job:
        counts = job.state("counts")
        await source.paused()
        await place.epoch(job)
        source.release()
        await until(lambda: job.metrics().records_in == 2)
        await turns()
        place.clock.advance(1_000)
        await until(lambda: f"{FOLDER}/manifest-2-1.json" in place.files.paths())
        await turns()
        assert job.status().epoch == 1
        assert await counts.get("a", as_of="committed") == 1
        release.set()
        await until(lambda: job.status().epoch == 2)
        assert await counts.get("a", as_of="committed") == 2


async def test_a_scan_of_an_epoch_is_a_cut_while_the_job_deletes_old_checkpoints() -> None:
    place = Place()
    records = [(f"key {number}", 1) for number in range(600)]
    source = ScriptedSource[Any](
        [*records, PAUSE, *records, PAUSE, *records, PAUSE, *records, PAUSE]
    )
    async with place.start(flow_of(source, parallelism=2), keep_checkpoints=1) as job:
        counts = job.state("counts")
        await source.paused()
        await place.epoch(job)
        scan = counts.scan(as_of="committed")
        pairs = [await anext(scan) for _ in range(10)]
        for _ in range(3):
            source.release()
            await turns()
            await place.epoch(job)
        await turns()
        held = [path for path in place.files.paths() if "manifest" in path]
        pairs += [pair async for pair in scan]
        assert dict(pairs) == {f"key {number}": 1 for number in range(600)}
        assert len(held) == 2
        assert set((await scanned(counts, as_of="committed")).values()) == {4}
        await place.epoch(job)
        await turns()
        left = [path for path in place.files.paths() if "manifest" in path]
        assert len(left) == 1, "what was held is let go"


async def test_of_another_parallelism_and_out_of_a_savepoint() -> None:
    place = Place()
    records = [(f"key {number}", number) for number in range(300)]
    source = ScriptedSource[Any]([*records, PAUSE])
    async with place.start(flow_of(source, parallelism=3)) as job:
        await source.paused()
        await turns()
        assert await job.savepoint("/saved") == 1
    source = ScriptedSource[Any]([*records, PAUSE])
    async with place.start(
        flow_of(source, parallelism=2), checkpoints="/elsewhere", restore="/saved"
    ) as job:
        await source.paused()
        for as_of in BOTH:
            found = await scanned(job.state("everything", "seen"), as_of=as_of)
            assert found == {key: [number] for key, number in records}
            assert await job.state("counts").get("key 7", as_of=as_of) == 1


async def test_a_folder_without_the_last_epoch_is_an_error_and_no_empty_state() -> None:
    place = Place()
    source = ScriptedSource[Any]([("a", 1), PAUSE, ("a", 1), PAUSE])
    gone = "the checkpoint of epoch 1 is not in /checkpoints any more"
    async with place.start(flow_of(source)) as job:
        counts = job.state("counts")
        await source.paused()
        await place.epoch(job)
        assert await counts.get("a", as_of="committed") == 1
        for path in place.files.paths():
            await place.files.delete(path)
        for key in ("a", "nobody"):
            with pytest.raises(CheckpointError, match=gone):
                await counts.get(key, as_of="committed")
        with pytest.raises(CheckpointError, match=gone):
            await scanned(counts, as_of="committed")
        assert await counts.get("a") == 1
        await job.cancel()


async def test_an_ended_job_does_not_read_what_another_one_went_on_to() -> None:
    place = Place()
    source = ScriptedSource[Any]([("a", 1), PAUSE, ("a", 1), PAUSE])
    async with place.start(flow_of(source)) as job:
        await source.paused()
    assert job.status().epoch == 1
    source.release()
    async with place.start(flow_of(source), keep_checkpoints=1) as after:
        await until(lambda: after.metrics().records_in == 2)
        await turns()
        await place.epoch(after)
        await turns()
        with pytest.raises(CheckpointError, match="or did another job go on in it"):
            await job.state("counts").get("a", as_of="committed")
        assert await after.state("counts").get("a", as_of="committed") == 2


async def test_of_a_checkpoint_that_is_deleted_meanwhile_the_next_one_is_read() -> None:
    place = Place()
    source = ScriptedSource[Any]([("a", 1), PAUSE])
    names = place.files.names
    async with place.start(flow_of(source), keep_checkpoints=1) as job:
        await source.paused()
        await place.epoch(job)
        await turns()
        counts, listed = job.state("counts"), 0

        async def names_after_an_epoch(path: str) -> list[str]:
            nonlocal listed
            listed += 1
            if listed == 1:
                await place.epoch(job)
                await turns()
            return await names(path)

        vars(place.files)["names"] = names_after_an_epoch
        assert await counts.get("a", as_of="committed") == 1
        assert job.status().epoch == 2


@pytest.mark.parametrize("as_of", BOTH)
async def test_a_limit_below_zero_is_refused(as_of: Any) -> None:
    place, source = Place(), ScriptedSource[Any]([("a", 1), PAUSE])
    async with place.start(flow_of(source)) as job:
        await source.paused()
        assert await scanned(job.state("counts"), as_of=as_of, limit=0) == {}
        with pytest.raises(ConfigError, match="limit=-1: it is a number of pairs, 0 or more"):
            await scanned(job.state("counts"), as_of=as_of, limit=-1)
