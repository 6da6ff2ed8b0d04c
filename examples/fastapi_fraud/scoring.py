"""The flow: each payment is scored once, against what its card did before and the rules of now."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any

import msgspec
from msgspec import Meta

from flowrt import (
    BroadcastState,
    Context,
    CoOperator,
    DeadLetter,
    ExponentialBackoff,
    FileSink,
    Flow,
    Ingest,
    LiveSink,
    OnError,
    Operator,
    OutputTag,
    SqliteLookup,
    SqliteSink,
    ValueState,
)

Name = Annotated[str, Meta(min_length=1, max_length=64)]
Cents = Annotated[int, Meta(ge=1, le=100_000_000)]
Points = Annotated[int, Meta(ge=0, le=1_000)]
Version = Annotated[int, Meta(ge=1, le=2**31 - 1)]

LETTERS: OutputTag[DeadLetter] = OutputTag("letters")
"""Payments that cannot be scored, for people to look at."""


class Payment(msgspec.Struct, frozen=True):
    """What a shop sends. The key is its own: the same when it sends the payment again.

    Its bounds are checked at the door: what has been answered with 202 comes again after each
    restart, so nothing may be taken that the flow cannot digest.
    """

    key: Name
    card: Name
    cents: Cents
    merchant: Name


class Rules(msgspec.Struct, frozen=True):
    """What counts as suspicious; changed by people while payments come."""

    version: Version = 1
    much_cents: Cents = 100_000
    """A payment of more than this scores 40."""
    times_usual: Annotated[int, Meta(ge=1, le=1_000)] = 10
    """One of more than so many times the card's mean scores 30, from its fourth payment on."""
    alert_at: Points = 60


class WithRisk(msgspec.Struct, frozen=True):
    """A payment, and how risky its merchant is (0 to 40)."""

    payment: Payment
    risk: int


class Scored(msgspec.Struct, frozen=True):
    """A row of the table of scores, with bounds that the table is sure to take."""

    key: Name
    card: Name
    cents: Cents
    merchant: Name
    score: Points
    reasons: str
    alert: bool
    rules: Version
    """The version of the rules it was scored under."""
    number: Annotated[int, Meta(ge=1, le=2**31 - 1)]
    """The how manyeth payment of its card it is, from 1."""


class Card(msgspec.Struct, frozen=True):
    """What is known of a card."""

    payments: int = 0
    cents: int = 0
    alerts: int = 0


class Once(Operator[Payment, Payment]):
    """Lets a payment with a new key through. A shop that got no answer sends it again, that day."""

    seen = ValueState(bool, default=False, ttl="1d")

    def process(self, value: Payment, ctx: Context) -> None:
        if not self.seen.get():
            self.seen.set(True)
            ctx.emit(value)


class Score(CoOperator[WithRisk, Rules, Scored]):
    """Payments on the left, by card; on the right the rules, which all subtasks hear of.

    Fails at a payment whose row the table might refuse: here it becomes a letter and leaves no
    trace, and in the sink it would fail the flow, again after each restart.
    """

    card = ValueState(Card, default=Card())
    rules = BroadcastState(str, Rules)

    def process_left(self, value: WithRisk, ctx: Context) -> None:
        payment, rules, before = value.payment, self.rules.get("now", Rules()), self.card.get()
        reasons = {
            "risky merchant": value.risk,
            "large": 40 * (payment.cents > rules.much_cents),
            "unusual": 30 * _is_unusual(payment, before, rules),
        }
        score = sum(reasons.values())
        alert = score >= rules.alert_at
        card = Card(before.payments + 1, before.cents + payment.cents, before.alerts + alert)
        self.card.set(card)
        row = msgspec.structs.asdict(payment) | {
            "score": score,
            "reasons": ", ".join(reason for reason, points in reasons.items() if points),
            "alert": alert,
            "rules": rules.version,
            "number": card.payments,
        }
        ctx.emit(msgspec.convert(row, Scored))

    def process_right(self, value: Rules, ctx: Context) -> None:
        self.rules.put("now", value)


def _is_unusual(payment: Payment, card: Card, rules: Rules) -> bool:
    return card.payments >= 3 and payment.cents * card.payments > rules.times_usual * card.cents


def flow(
    payments: Ingest[Payment],
    rules: Ingest[Rules],
    alerts: LiveSink[Scored],
    merchants: SqliteLookup[dict[str, Any]],
    folder: Path,
) -> Flow:
    """Describe the flow; it writes to `scores.db` and the folder `letters` in `folder`."""

    async def with_risk(payment: Payment) -> WithRisk:
        merchant = await merchants(payment.merchant)
        # Nobody knows the merchant: that is a risk of its own. Of one that is known the risk may be
        # anything, for the table is somebody else's.
        return WithRisk(payment, 40 if merchant is None else merchant["risk"])

    flow = Flow("fraud")
    scored = (
        flow.source(payments, name="payments")
        .key_by(lambda payment: payment.key)
        .process(Once, name="once")
        .map_async(
            with_risk,
            capacity=100,
            timeout="2s",
            retry=ExponentialBackoff("50ms", longest="1s", attempts=5),
            name="merchant",
        )
        .key_by(lambda found: found.payment.card)
        .connect(flow.source(rules, name="rules", parallelism=1).broadcast())
        .process(Score, name="score", on_error=OnError.dead_letter(LETTERS))
    )
    scored.sink(SqliteSink(folder / "scores.db", "scores", columns=Scored), name="scores")
    scored.side_output(LETTERS).sink(FileSink(folder / "letters"), name="letters")
    scored.filter(lambda row: row.alert).sink(alerts, name="alerts")
    return flow
