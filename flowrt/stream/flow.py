"""Flow: the program. It begins with its sources."""

from __future__ import annotations

from collections.abc import AsyncIterable, Iterable
from typing import Any, TypeVar

from flowrt.contract.errors import GraphError
from flowrt.contract.on_error import DeadLetter, OnError
from flowrt.contract.operator import OutputTag
from flowrt.contract.source import Source
from flowrt.contract.time import WatermarkStrategy
from flowrt.graph.nodes import Graph, Output, Plan
from flowrt.graph.plan import plan
from flowrt.operators.assign_timestamps import check_strategy
from flowrt.stream.description import LETTERS, Description
from flowrt.stream.own_output import check_own_output
from flowrt.stream.stream import Stream

T = TypeVar("T")


class Flow:
    """A named graph of sources, steps and sinks, described by chaining calls on streams.

    Describing runs nothing: `flowrt.run` and `flowrt.start` do. `parallelism` is that of every
    source, step and sink that has none of its own. At equal parallelism a record stays in its line
    and so keeps its order; where parallelism changes without a key_by, records are spread in turn
    and their order is lost. `on_error` says what becomes of records that a step fails at, where the
    step says nothing: see `OnError`. It is for all steps but `assign_timestamps` and those that
    read `dead_letters`: they fail the flow, unless told otherwise.

    Names, that of the flow and every `name=`, are 1 to 100 letters, digits, "_", "-" and ".". State
    and positions are found again by them after a restart; without one an id is derived from the
    step's place, such as "map-2" for the second map after the source: it stays when sinks, other
    branches or steps of another kind are added, and no longer than that. `GraphError` is raised by
    the call that is wrong, or by `build` where only the whole shows it.
    """

    def __init__(self, name: str, *, parallelism: int = 1, on_error: OnError | None = None) -> None:
        self._description = Description(name, parallelism, on_error)

    @property
    def name(self) -> str:
        """The flow's name; a checkpoint belongs to the flow of its name."""
        return self._description.flow

    def source(
        self,
        source: Source[T] | Iterable[T] | AsyncIterable[T],
        *,
        name: str | None = None,
        watermarks: WatermarkStrategy[T] | None = None,
        parallelism: int | None = None,
        max_rate: float | None = None,
    ) -> Stream[T]:
        """Begin a stream. A plain iterable or async iterable is read as by `IterableSource`.

        `watermarks` gives event time for each split, in place of the source's own idea of it.
        `max_rate` is in records a second, over all subtasks.
        """
        if watermarks is not None:
            check_strategy(watermarks, f"source of flow {self.name!r}")
        output = self._description.add_source(
            _as_source(source, self.name),
            name=name,
            watermarks=watermarks,
            parallelism=parallelism,
            max_rate=max_rate,
        )
        return Stream(self._description, (output,))

    def dead_letters(self, tag: OutputTag[DeadLetter]) -> Stream[DeadLetter]:
        """Read what all steps with `on_error=OnError.dead_letter(tag)` send there, as one stream.

        Also of steps that are described later.
        """
        if not isinstance(tag, OutputTag):
            raise GraphError(
                f"flow {self.name!r}: dead_letters needs an OutputTag, such as "
                f"OutputTag[DeadLetter]('bad'): got {tag!r}"
            )
        return Stream(self._description, (Output(LETTERS, tag.name),))

    def build(self) -> Graph:
        """Return the flow as a checked graph; `GraphError` where it cannot run."""
        graph = self._description.build()
        check_own_output(graph)
        return graph

    def plan(self) -> Plan:
        """Return which steps run in one task, and what is between tasks; checks as `build`."""
        return plan(self.build())

    def __repr__(self) -> str:
        return f"Flow({self.name!r})"


def _as_source(source: Any, flow: str) -> Source[Any]:
    if isinstance(source, Source):
        return source
    if isinstance(source, str | bytes):
        raise GraphError(
            f"flow {flow!r}: text is no source; to read the file {source!r} use FileSource(...), "
            "and to read its characters list(...)"
        )
    if isinstance(source, Iterable | AsyncIterable):
        from flowrt.connectors.iterables import IterableSource

        wrapped: Source[Any] = IterableSource(source)
        return wrapped
    raise GraphError(
        f"flow {flow!r} cannot read from {source!r}: pass an instance of a Source, an iterable or "
        "an async iterable"
    )
