"""join_static: each record looked up in a table that does not change."""

from __future__ import annotations

from typing import Any

import pytest

from flowrt.contract.errors import ConfigError
from flowrt.contract.steps import FlatMap, Map, Process
from flowrt.operators.static_join import How, join_static
from flowrt.testing import END, check_operator, record, records, watermark
from tests.operators.recording import Recording, context

pytestmark = pytest.mark.anyio

AIRLINES = {"UA": "United", "DL": "Delta", "XX": None}
FLIGHTS = ["UA 1", "?? 2", "DL 3", "XX 4"]
INNER = ["UA 1 United", "DL 3 Delta", "XX 4 None"]
LEFT = ["UA 1 United", "?? 2 None", "DL 3 Delta", "XX 4 None"]


def carrier(flight: str) -> str:
    return flight[:2]


def merge(flight: str, airline: str | None) -> str:
    return f"{flight} {airline}"


async def from_afar() -> dict[str, str | None]:
    return AIRLINES


async def joined(table: Any, how: How) -> list[str]:
    step = join_static(table, on=carrier, merge=merge, how=how)
    if isinstance(step, Map):
        return [step.fn(flight) for flight in FLIGHTS]
    if isinstance(step, FlatMap):
        return [found for flight in FLIGHTS for found in step.fn(flight)]
    assert isinstance(step, Process)
    return await run(step)


async def run(step: Process) -> list[str]:
    recording = Recording()
    operator = step.make()
    opening = operator.open(context(recording))
    assert opening is not None
    await opening
    for flight in FLIGHTS:
        operator.process(flight, context(recording))
    return recording.emitted


@pytest.mark.parametrize("table", [AIRLINES, lambda: AIRLINES, from_afar])
async def test_inner_drops_what_has_no_row(table: Any) -> None:
    assert await joined(table, "inner") == INNER


@pytest.mark.parametrize("table", [AIRLINES, lambda: AIRLINES, from_afar])
async def test_left_keeps_it_with_none(table: Any) -> None:
    assert await joined(table, "left") == LEFT


async def test_the_table_is_loaded_anew_for_each_instance() -> None:
    loads = []

    def load() -> dict[str, str | None]:
        loads.append(1)
        return AIRLINES

    step = join_static(load, on=carrier, merge=merge)
    assert isinstance(step, Process)
    assert loads == []
    await run(step)
    await run(step)
    assert loads == [1, 1]


async def test_what_is_loaded_must_be_a_table() -> None:
    step = join_static(lambda: [("UA", "United")], on=carrier, merge=merge)  # type: ignore[arg-type, return-value]
    assert isinstance(step, Process)

    with pytest.raises(ConfigError, match=r"operator 'here': the function .* returned a list"):
        await run(step)


@pytest.mark.parametrize("table", [AIRLINES, lambda: AIRLINES, from_afar])
@pytest.mark.parametrize("how", ["inner", "left"])
async def test_laws(table: Any, how: How) -> None:
    given = [
        record(FLIGHTS[0], at=3),
        *records(*FLIGHTS[1:3]),
        watermark(10),
        record(FLIGHTS[3]),
        END,
    ]
    found = INNER if how == "inner" else LEFT

    expect = [
        record(found[0], at=3),
        *records(*found[1:-1]),
        watermark(10),
        record(found[-1]),
        END,
    ]

    await check_operator(join_static(table, on=carrier, merge=merge, how=how), given, expect)
