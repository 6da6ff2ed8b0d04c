"""Each airport gets its weather once, in order, also when the flow stops in between."""

from __future__ import annotations

import csv
import json
from pathlib import Path
from typing import Any

import pytest
from anyio.lowlevel import checkpoint

import flowrt
from examples.enrich import AIRPORTS, Service, flow

ROOT = Path(__file__).parent.parent.parent

pytestmark = pytest.mark.anyio


@pytest.fixture(autouse=True)
def _in_the_checkout(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(ROOT)


def written(folder: Path) -> list[dict[str, Any]]:
    parts = sorted(folder.glob("part-*.jsonl"))
    return [json.loads(line) for part in parts for line in part.read_bytes().splitlines()]


async def test_a_drain_in_the_middle_changes_nothing(tmp_path: Path) -> None:
    out, kept, service = tmp_path / "weather", tmp_path / "checkpoints", Service(seconds=0)
    async with flowrt.start(flow(out, service), checkpoints=kept) as job:
        while job.metrics().records_out < 100:
            await checkpoint()
        await job.drain()
    async with flowrt.start(flow(out, service), checkpoints=kept) as job:
        await job.wait()

    with AIRPORTS.open(encoding="utf-8", newline="") as file:
        airports = list(csv.DictReader(file))
    assert [row["airport"] for row in written(out)] == [airport["faa"] for airport in airports]
    assert written(out)[0] == {"airport": "04G", "name": "Lansdowne Airport", "celsius": 10.3}
    assert service.calls == len(airports)
