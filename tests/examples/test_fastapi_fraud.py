"""The fraud service, in one life: its answers, what it refuses, what it shows.

`tests/journeys/crash/test_crash_fraud.py` is about its deaths.
"""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import anyio
import httpx2
import msgspec
import pytest
import uvicorn
from anyio.lowlevel import checkpoint

from examples.fastapi_fraud import shop
from examples.fastapi_fraud.scoring import Payment, Rules
from examples.fastapi_fraud.service import app

pytestmark = pytest.mark.asyncio


@asynccontextmanager
async def served(
    folder: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[httpx2.AsyncClient]:
    """A client of a real server in this process."""
    monkeypatch.setenv("FRAUD_FOLDER", str(folder))
    config = uvicorn.Config(app, port=0, log_level="critical", timeout_graceful_shutdown=1)
    server = uvicorn.Server(config)
    async with anyio.create_task_group() as group:
        group.start_soon(server.serve)
        while not server.started:
            await checkpoint()
        (port,) = {s.getsockname()[1] for one in server.servers for s in one.sockets}
        async with httpx2.AsyncClient(base_url=f"http://127.0.0.1:{port}", timeout=30) as client:
            yield client
        server.should_exit = True


async def pay(client: httpx2.AsyncClient, payment: Payment) -> dict[str, Any]:
    content = msgspec.json.encode(payment)
    assert (await client.post("/payments", content=content)).status_code == 202
    while (answer := await client.get(f"/payments/{payment.key}")).status_code == 404:
        await checkpoint()
    found: dict[str, Any] = answer.json()
    return found


async def test_a_payment_is_scored_under_the_rules_of_now_and_its_card_is_known(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch) as client:
        first = await pay(client, Payment("1", "ada", 500, "grocer"))
        assert (first["score"], first["rules"], first["number"]) == (0, 1, 1)

        rules = Rules(version=2, much_cents=400, alert_at=40)
        answer = await client.put("/rules", content=msgspec.json.encode(rules))
        assert answer.status_code == 202
        number = 2
        while (row := await pay(client, Payment(str(number), "ada", 500, "grocer")))["rules"] == 1:
            number += 1
        assert (row["score"], row["reasons"], row["alert"]) == (40, "large", 1)

        again = await pay(client, Payment("1", "ada", 500, "grocer"))
        assert again == first
        card = (await client.get("/cards/ada")).json()
        assert card == {"payments": number, "cents": 500 * number, "alerts": 1}


async def test_what_is_wrong_is_told(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, monkeypatch) as client:
        wrong = await client.post("/payments", content=b'{"key": 1}')
        assert (wrong.status_code, wrong.json()["detail"]) == (
            422,
            "Expected `str`, got `int` - at `$.key`",
        )
        assert (await client.get("/payments/none")).status_code == 404
        assert (await client.get("/cards/nobody")).status_code == 404
        health = (await client.get("/health")).json()
        assert (health["flow"], health["waiting"]) == ("running", 0)


async def test_the_shop_gets_a_score_for_each_payment(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    async with served(tmp_path, monkeypatch) as client:
        await shop.main(str(client.base_url), 60)

    assert capsys.readouterr().out.startswith("60 payments scored, ")


async def test_alerts_are_streamed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with served(tmp_path, monkeypatch) as client:
        await pay(client, Payment("1", "eve", 200_000, "casino"))
        async with client.stream("GET", "/alerts") as response:
            async for line in response.aiter_lines():
                if line.startswith("data: "):
                    break

    assert msgspec.json.decode(line.removeprefix("data: "))["key"] == "1"
