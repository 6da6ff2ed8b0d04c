"""An order that fails is a letter, and counts once it was fed back."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from anyio.lowlevel import checkpoint
from typer.testing import CliRunner

import flowrt
from examples.bad_orders import flow
from flowrt.cli.app import app

pytestmark = pytest.mark.anyio

ORDERS = [
    {"customer": "ada", "amount": 10, "currency": "EUR"},
    {"customer": "bob", "amount": 30, "currency": "DKK"},
    {"customer": "ada", "currency": "EUR"},
    {"customer": "ada", "amount": 5, "currency": "EUR"},
]


async def run(folder: Path, records: int) -> None:
    """Run the flow until it has read so many orders in all."""
    async with flowrt.start(flow(folder), checkpoints=folder / "checkpoints") as job:
        while job.metrics().records_in < records:
            await checkpoint()


def rows(folder: Path) -> list[Any]:
    texts = [path.read_text() for path in sorted(folder.glob("part-*"))]
    return [json.loads(line) for text in texts for line in text.splitlines()]


async def test_an_order_that_fails_stops_nobody_and_can_be_fed_back(tmp_path: Path) -> None:
    (tmp_path / "orders").mkdir()
    text = "".join(f"{json.dumps(order)}\n" for order in ORDERS)
    (tmp_path / "orders" / "monday.jsonl").write_text(text)
    (tmp_path / "rates.json").write_text('{"EUR": 1}')

    await run(tmp_path, 4)
    assert rows(tmp_path / "totals") == [["ada", 10], ["ada", 15]]
    letters = [(row["value"]["customer"], row["message"]) for row in rows(tmp_path / "letters")]
    assert letters == [("bob", "'DKK'"), ("ada", "'amount'")]

    (tmp_path / "rates.json").write_text('{"EUR": 1, "DKK": 7.5}')
    replay = ["deadletters", "replay", str(tmp_path / "letters"), "--into", str(tmp_path / "again")]
    # The command has an event loop of its own.
    done = await anyio.to_thread.run_sync(CliRunner().invoke, app, replay)
    assert "2 fed back" in done.stdout
    await run(tmp_path, 6)

    assert rows(tmp_path / "totals")[2:] == [["bob", 4]]
    assert [row["message"] for row in rows(tmp_path / "letters")] == [
        "'DKK'",
        "'amount'",
        "'amount'",
    ]
