"""The service around the flow.

    FRAUD_FOLDER=.demo/fraud uvicorn examples.fastapi_fraud.service:app

A payment is answered with 202 once it is in the journal: from then on it is scored, and once. Kill
the service with kill -9 when you like, start it again, and send again what was not answered: what
got no answer, or one from 500 on. A 422 stays a 422.
"""

from __future__ import annotations

import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager, closing
from pathlib import Path
from typing import Annotated, Any, TypeVar

import msgspec
from fastapi import Depends, FastAPI, Header, HTTPException, Request, Response
from fastapi.responses import StreamingResponse

from examples.fastapi_fraud.scoring import Payment, Rules, Scored, flow
from flowrt import Ingest, IngestError, Job, LiveSink, SqliteLookup, StateError, start

T = TypeVar("T")

MERCHANTS = {"grocer": 0, "bookshop": 0, "airline": 10, "jeweller": 20, "casino": 40}
"""How risky they are; in real life somebody else's table."""


class Service:
    """What the handlers use; made anew in each life."""

    def __init__(self, folder: Path) -> None:
        self.payments = Ingest("payments", type=Payment, journal=folder / "payments")
        self.rules = Ingest("rules", type=Rules, journal=folder / "rules")
        self.alerts: LiveSink[Scored] = LiveSink(event="alert")
        self.scores = SqliteLookup(
            folder / "scores.db", "SELECT * FROM scores WHERE key = ?", type=dict[str, Any]
        )
        self.job: Job | None = None


@asynccontextmanager
async def lifespan(app: FastAPI) -> AsyncIterator[None]:
    folder = Path(os.environ.get("FRAUD_FOLDER", ".demo/fraud"))
    make_merchants(folder / "merchants.db")
    app.state.service = service = Service(folder)
    query = "SELECT risk FROM merchants WHERE name = ?"
    with SqliteLookup(folder / "merchants.db", query) as merchants, service.scores:
        fraud = flow(service.payments, service.rules, service.alerts, merchants, folder)
        async with start(fraud, checkpoints=folder / "checkpoints", on_failure="keep") as job:
            service.job = job
            yield


def make_merchants(path: Path) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    with closing(sqlite3.connect(path)) as database, database:
        database.execute(
            "CREATE TABLE IF NOT EXISTS merchants (name TEXT PRIMARY KEY, risk INTEGER NOT NULL)"
        )
        rows = list(MERCHANTS.items())
        database.executemany("INSERT OR IGNORE INTO merchants VALUES (?, ?)", rows)


app = FastAPI(title="fraud", lifespan=lifespan)


def service_of(request: Request) -> Service:
    found: Service = request.app.state.service
    return found


ServiceOf = Annotated[Service, Depends(service_of)]


async def body_as(request: Request, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(await request.body(), type=kind)
    except (ValueError, RecursionError) as error:  # no JSON, no UTF-8, or not of this kind
        raise HTTPException(422, str(error)) from error


def json(value: Any, status: int = 200) -> Response:
    return Response(msgspec.json.encode(value), status, media_type="application/json")


@app.post("/payments")
async def pay(request: Request, service: ServiceOf) -> Response:
    """Take a payment; answers when it cannot be lost any more."""
    payment = await body_as(request, Payment)
    try:
        await service.payments.send(payment)
    except IngestError as error:  # the flow is over, or the disk fails: the shop tries again
        raise HTTPException(503, str(error)) from error
    return json({"key": payment.key}, 202)


@app.get("/payments/{key}")
async def score(key: str, service: ServiceOf) -> dict[str, Any]:
    """Tell how a payment was scored; 404 until the epoch that scored it is committed."""
    row = await service.scores(key)
    if row is None:
        raise HTTPException(404, f"payment {key} is not scored, or not yet")
    return row


@app.put("/rules")
async def change_rules(request: Request, service: ServiceOf) -> Response:
    """Let other rules hold from now on; those under way are scored under the old or the new."""
    rules = await body_as(request, Rules)
    try:
        await service.rules.send(rules)
    except IngestError as error:
        raise HTTPException(503, str(error)) from error
    return json(rules, 202)


@app.get("/cards/{card}")
async def card(card: str, service: ServiceOf) -> Response:
    """Tell what is known of a card now, also of payments whose epoch is not committed yet."""
    assert service.job is not None
    try:
        known = await service.job.state("score", "card").get(card)
    except StateError as error:  # the flow is over, and its memory with it
        raise HTTPException(503, str(error)) from error
    if known is None:
        raise HTTPException(404, f"card {card} has not paid yet")
    return json(known)


@app.get("/alerts")
async def alerts(
    service: ServiceOf, last_event_id: Annotated[str | None, Header()] = None
) -> Response:
    """Stream alerts as server-sent events, each once; a browser that comes back misses none."""
    body = service.alerts.stream(last_event_id, replay=100)
    return StreamingResponse(body, media_type="text/event-stream")


@app.get("/health")
async def health(service: ServiceOf) -> Response:
    """Say where the flow stands; 503 where it has failed, so that somebody restarts the service.

    `letters` are the payments that could not be scored since the service was started.
    """
    assert service.job is not None
    status, letters = service.job.status(), service.job.metrics().dead_letters
    said = {
        "flow": status.state,
        "epoch": status.epoch,
        "waiting": service.payments.waiting,
        "letters": sum(letters.values()),
    }
    return json(said, 503 if status.state == "failed" else 200)
