"""Static join: looks each record up in a table that does not change while the flow runs."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Hashable, Mapping
from typing import Any, Literal, TypeAlias, get_args

from flowrt.contract.errors import ConfigError, GraphError
from flowrt.contract.operator import Context, Operator
from flowrt.contract.steps import FlatMap, Map, Process
from flowrt.operators.arguments import check_function, check_plain

Table: TypeAlias = Mapping[Any, Any]
Load: TypeAlias = Callable[[], Table | Awaitable[Table]]
How: TypeAlias = Literal["inner", "left"]

_MISSING = object()


def join_static(
    table: Table | Load,
    *,
    on: Callable[[Any], Hashable],
    merge: Callable[[Any, Any], Any],
    how: How = "inner",
) -> Map | FlatMap | Process:
    """Replace each value by `merge(value, table[on(value)])`.

    Where the table has no such row, `inner` drops the value and `left` gives `merge(value, None)`.
    `table` is a mapping, or a function, plain or coroutine, that loads one when the flow starts
    (once for each subtask, again at each restart).

    >>> airlines = {"UA": "United"}
    >>> step = join_static(airlines, on=lambda flight: flight, merge=lambda code, name: name)
    >>> [name for code in ["UA", "??"] for name in step.fn(code)]
    ['United']
    """
    if how not in get_args(How):
        raise GraphError(f"join_static has how={how!r}: it must be 'inner' or 'left'")
    check_plain(on, "join_static", argument="on")
    check_plain(merge, "join_static", arguments=2, argument="merge")
    if not isinstance(table, Mapping):
        check_function(table, "join_static", arguments=0, argument="table (unless a mapping)")
        return Process(lambda: StaticJoin(table, on, merge, how))
    # A table that is there already needs no operator: these two are fused with their neighbours.
    find = table.get
    if how == "left":

        def joined(value: Any) -> Any:
            return merge(value, find(on(value)))

        return Map(joined)

    def matching(value: Any) -> tuple[Any, ...]:
        row = find(on(value), _MISSING)
        return () if row is _MISSING else (merge(value, row),)

    return FlatMap(matching)


class StaticJoin(Operator[Any, Any]):
    """The join with a table that is loaded when the flow starts."""

    def __init__(
        self,
        load: Load,
        on: Callable[[Any], Hashable],
        merge: Callable[[Any, Any], Any],
        how: How,
    ) -> None:
        self._load = load
        self._on = on
        self._merge = merge
        self._missing = None if how == "left" else _MISSING
        self._table: Table = {}

    async def open(self, ctx: Context) -> None:
        """Load the table."""
        loaded = self._load()
        table = await loaded if isinstance(loaded, Awaitable) else loaded
        if not isinstance(table, Mapping):
            raise ConfigError(
                f"operator {ctx.operator!r}: the function that loads its table returned a "
                f"{type(table).__name__}; join_static needs a mapping such as a dict"
            )
        self._table = table

    def process(self, value: Any, ctx: Context) -> None:
        """Emit the value with its row."""
        row = self._table.get(self._on(value), self._missing)
        if row is not _MISSING:
            ctx.emit(self._merge(value, row))
