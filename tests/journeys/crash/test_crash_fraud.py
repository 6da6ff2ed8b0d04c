"""The fraud example under kill -9: a real server, a client that retries, each scored once."""

from __future__ import annotations

import os
import random
import signal
import socket
import sqlite3
import subprocess
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import closing
from itertools import accumulate, count
from pathlib import Path
from typing import Any

import anyio
import httpx2
import msgspec
import pytest

from examples.fastapi_fraud.scoring import Payment, Rules
from examples.fastapi_fraud.shop import AT_ONCE, payments, scores, until_answered
from tests.journeys.crash.test_crash import KILLS, SEED, pytestmark

__all__ = ["pytestmark"]

TIMES = 300 if KILLS else 30
"""How often the service is killed."""
BETWEEN = (1, 60)
"""How many answers come from one death to the next, or fewer: then it dies while it starts."""
TAIL = 60
"""How many payments are left behind the last death."""


class Server:
    """The service as a process of its own, on a port that stays the same."""

    def __init__(self, folder: Path) -> None:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            self.port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{self.port}"
        self._environment = os.environ | {"FRAUD_FOLDER": str(folder)}
        self._log = folder.with_suffix(".log")
        self._process: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        command = [sys.executable, "-m", "uvicorn", "examples.fastapi_fraud.service:app"]
        options = ["--port", str(self.port), "--log-level", "warning"]
        grace = ["--timeout-graceful-shutdown", "1"]
        with self._log.open("ab") as log:
            self._process = subprocess.Popen(
                [*command, *options, *grace], env=self._environment, stderr=log
            )

    def kill(self) -> None:
        assert self._process is not None
        assert self._process.poll() is None, self._log.read_text()
        self._process.kill()
        self._process.wait()

    def stop(self) -> None:
        assert self._process is not None
        self._process.send_signal(signal.SIGTERM)
        assert self._process.wait(30) in (0, -signal.SIGTERM), self._log.read_text()


class Story:
    """What the shop, the people behind the rules and a page of alerts do meanwhile."""

    def __init__(self, server: Server, chance: random.Random) -> None:
        self.server = server
        self.chance = chance
        self.deaths = [*accumulate(chance.randint(*BETWEEN) for _ in range(TIMES))]
        self.answered = 0
        self.sent_again = 0
        self.versions = 1
        self.alerts: list[tuple[str, dict[str, Any]]] = []
        self.missed = False

    async def run(self, every: list[Payment]) -> list[dict[str, Any]]:
        """Pay while the server is killed again and again; return the scores of all payments."""
        self.server.start()
        async with anyio.create_task_group() as others:
            others.start_soon(self._watch_alerts)
            async with anyio.create_task_group() as group:
                group.start_soon(self._kill)
                group.start_soon(self._change_rules, every)
                left = iter(every)
                for _ in range(AT_ONCE):
                    group.start_soon(self._pay, left)
            found = await scores(self.server.url, every)
            others.cancel_scope.cancel()
        return found

    async def _kill(self) -> None:
        for answers in self.deaths:
            while self.answered < answers:  # noqa: ASYNC110 - another process makes the progress
                await anyio.sleep(0.005)
            self.server.kill()
            self.server.start()

    async def _pay(self, left: Iterator[Payment]) -> None:
        async with httpx2.AsyncClient(base_url=self.server.url, timeout=5) as client:
            for payment in left:
                content = msgspec.json.encode(payment)
                answer = await until_answered(client, "POST", "/payments", content=content)
                assert answer.status_code == 202, answer.text
                self.answered += 1
                if self.chance.random() < 0.05:  # the shop forgot that it was answered
                    self.sent_again += 1
                    await until_answered(client, "POST", "/payments", content=content)

    async def _change_rules(self, every: list[Payment]) -> None:
        async with httpx2.AsyncClient(base_url=self.server.url, timeout=5) as client:
            for version in count(2):
                while self.answered < 40 * version:
                    if self.answered == len(every):
                        return
                    await anyio.sleep(0.01)
                rules = Rules(version, alert_at=self.chance.choice([40, 60]))
                content = msgspec.json.encode(rules)
                answer = await until_answered(client, "PUT", "/rules", content=content)
                assert answer.status_code == 202, answer.text
                self.versions = version

    async def _watch_alerts(self) -> None:
        last: dict[str, str] = {}
        while True:
            try:
                async with (
                    httpx2.AsyncClient(base_url=self.server.url, timeout=30) as client,
                    client.stream("GET", "/alerts", headers=last) as response,
                ):
                    event: dict[str, str] = {}
                    async for line in response.aiter_lines():
                        if line:
                            name, _, value = line.partition(": ")
                            event[name] = value
                            continue
                        self.missed |= event.get("event") == "missed"
                        if event.get("event") == "alert":
                            self.alerts.append((event["id"], msgspec.json.decode(event["data"])))
                            last = {"Last-Event-ID": event["id"]}
                        event = {}
            except httpx2.HTTPError:
                await anyio.sleep(0.01)


@pytest.mark.timeout(300 + 10 * TIMES)
def test_each_payment_is_scored_once_whenever_the_service_is_killed(tmp_path: Path) -> None:
    folder = tmp_path / "fraud"
    server, chance = Server(folder), random.Random(SEED)
    story = Story(server, chance)
    every = payments(story.deaths[-1] + TAIL, SEED)

    found = anyio.run(story.run, every)
    server.stop()

    with closing(sqlite3.connect(folder / "scores.db")) as database:
        database.row_factory = sqlite3.Row
        rows = [dict(row) for row in database.execute("SELECT * FROM scores")]
    seen = Counter(row["key"] for row in rows)
    lost = sum(not seen[payment.key] for payment in every)
    repeated = sum(times - 1 for times in seen.values())
    alerts = {row["key"] for row in rows if row["alert"]}
    print(
        f"fraud: {TIMES} kills, {len(every)} payments, {story.sent_again} sent again after their "
        f"answer, {story.versions} versions of the rules, {len(alerts)} alerts; {lost} lost, "
        f"{repeated} repeated"
    )
    assert (lost, repeated, len(rows)) == (0, 0, len(every))
    assert sorted(found, key=str) == sorted(rows, key=str)
    _check_cards(rows, every, story.versions)
    _check_alerts(story, alerts)


def _check_cards(rows: list[dict[str, Any]], every: list[Payment], versions: int) -> None:
    """No payment was left out of a card's figures, or counted twice; rules never went back."""
    paid = {payment.key: payment for payment in every}
    for card in {payment.card for payment in every}:
        mine = sorted((row for row in rows if row["card"] == card), key=lambda row: row["number"])
        assert [row["number"] for row in mine] == [*range(1, len(mine) + 1)]
        rules = [row["rules"] for row in mine]
        assert rules == sorted(rules)
        assert 1 <= rules[0] <= rules[-1] <= versions
        for row in mine:
            assert paid[row["key"]].cents == row["cents"]


def _check_alerts(story: Story, expected: set[str]) -> None:
    """A page that comes back after each death sees each alert once."""
    assert len({id for id, _ in story.alerts}) == len(story.alerts)
    shown = Counter(alert["key"] for _, alert in story.alerts)
    assert set(shown.values()) <= {1}
    assert set(shown) <= expected
    assert story.missed or set(shown) == expected
