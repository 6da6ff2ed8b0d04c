"""The fraud service, in one life: its answers, what it refuses, what it shows.

`tests/journeys/crash/test_crash_fraud.py` is about its deaths.
"""

from __future__ import annotations

import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
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
from examples.fastapi_fraud.service import app, make_merchants

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
        assert (health["flow"], health["waiting"], health["letters"]) == ("running", 0, 0)


PAYMENT = {"key": "1", "card": "ada", "cents": 500, "merchant": "grocer"}


WRONG: list[tuple[dict[str, Any] | bytes, str]] = [
    ({"cents": 2**64 - 1}, "`int` <= 100000000 - at `$.cents`"),
    ({"cents": 10**23}, "`int` <= 100000000 - at `$.cents`"),
    ({"cents": 0}, "`int` >= 1 - at `$.cents`"),
    ({"cents": -(2**63)}, "`int` >= 1 - at `$.cents`"),
    ({"key": ""}, "length >= 1 - at `$.key`"),
    ({"key": "k" * 65}, "length <= 64 - at `$.key`"),
    ({"card": "c" * 65}, "length <= 64 - at `$.card`"),
    ({"merchant": "m" * 65}, "length <= 64 - at `$.merchant`"),
    (b'{"key": "\xff"}', "utf-8"),
    (b'{"key": "\\ud800"}', ""),
    (b'{"more": ' + b"[" * 100_000, "recursion"),
]


async def test_what_could_not_be_scored_is_refused_at_the_door(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch) as client:
        for wrong, said in WRONG:
            content = wrong if isinstance(wrong, bytes) else msgspec.json.encode(PAYMENT | wrong)
            answer = await client.post("/payments", content=content)
            assert (answer.status_code, said in answer.json()["detail"]) == (422, True), wrong

        for name, value in (
            ("version", 2**64 - 1),
            ("version", 0),
            ("much_cents", 2**64 - 1),
            ("times_usual", 10**23),
            ("alert_at", -1),
        ):
            rules = await client.put("/rules", content=msgspec.json.encode({name: value}))
            assert rules.status_code == 422, name

        row = await pay(client, Payment("1", "ada", 500, "grocer"))
        assert (row["number"], row["rules"]) == (1, 1)


@pytest.mark.parametrize("risk", ["high", 2**62])
async def test_a_payment_that_cannot_be_scored_becomes_a_letter_and_stops_nobody(
    risk: object, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    make_merchants(tmp_path / "merchants.db")
    with closing(sqlite3.connect(tmp_path / "merchants.db")) as merchants, merchants:
        merchants.execute("INSERT INTO merchants VALUES ('odd', ?)", [risk])
    odd = Payment("1", "ada", 500, "odd")
    async with served(tmp_path, monkeypatch) as client:
        answer = await client.post("/payments", content=msgspec.json.encode(odd))
        assert answer.status_code == 202
        assert (await pay(client, Payment("2", "ada", 500, "grocer")))["number"] == 1
        while not (health := (await client.get("/health")).json())["letters"]:
            await checkpoint()
        assert (health["flow"], health["letters"]) == ("running", 1)
        assert (await client.get("/payments/1")).status_code == 404

    async with served(tmp_path, monkeypatch) as client:  # it does not come again
        assert (await pay(client, Payment("3", "ada", 500, "grocer")))["number"] == 2
        assert (await client.get("/health")).json()["letters"] == 0

    texts = [part.read_text() for part in (tmp_path / "letters").glob("part-*")]
    (letter,) = [msgspec.json.decode(line) for text in texts for line in text.splitlines()]
    assert (letter["operator"], letter["value"]["payment"]["key"]) == ("score", "1")


async def test_a_flow_that_has_failed_is_told_by_every_answer(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    async with served(tmp_path, monkeypatch) as client:
        with closing(sqlite3.connect(tmp_path / "scores.db")) as scores, scores:
            scores.execute("DROP TABLE scores")
        content = msgspec.json.encode(PAYMENT)
        assert (await client.post("/payments", content=content)).status_code == 202
        while (health := await client.get("/health")).status_code == 200:
            await checkpoint()

        assert health.json()["flow"] == "failed"
        for method, path in (("GET", "/cards/ada"), ("POST", "/payments"), ("PUT", "/rules")):
            sent = content if method == "POST" else b"{}"
            answer = await client.request(method, path, content=sent)
            assert (answer.status_code, bool(answer.json()["detail"])) == (503, True), path


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
