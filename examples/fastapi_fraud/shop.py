"""A shop that sends each payment until it is answered, and then waits for its score.

python -m examples.fastapi_fraud.shop http://127.0.0.1:8000 1000
"""

from __future__ import annotations

import random
import sys
from collections.abc import Iterator
from typing import Any

import anyio
import httpx2
import msgspec

from examples.fastapi_fraud.scoring import Payment
from examples.fastapi_fraud.service import MERCHANTS

AT_ONCE = 20
PAUSE = 0.05


def payments(count: int, seed: int = 0) -> list[Payment]:
    """Return payments of some cards, now and then an unusual one."""
    chance = random.Random(seed)
    merchants = [*MERCHANTS, "unheard-of"]
    return [
        Payment(
            f"{seed}-{number}",
            f"card-{chance.randrange(20)}",
            chance.randrange(100, 10_000) * (200 if chance.random() < 0.05 else 1),
            chance.choice(merchants),
        )
        for number in range(count)
    ]


async def until_answered(client: httpx2.AsyncClient, method: str, path: str, **what: Any) -> Any:
    """Ask until there is an answer that is not the server's own trouble."""
    while True:
        try:
            answer = await client.request(method, path, **what)
        except httpx2.TransportError:
            answer = None
        if answer is not None and answer.status_code < 500:
            return answer
        await anyio.sleep(PAUSE)


async def pay(client: httpx2.AsyncClient, left: Iterator[Payment]) -> None:
    for payment in left:
        answer = await until_answered(
            client, "POST", "/payments", content=msgspec.json.encode(payment)
        )
        answer.raise_for_status()


async def pay_all(url: str, every: list[Payment]) -> None:
    """Send all payments, some at a time, each until it is answered."""
    left = iter(every)
    async with (
        httpx2.AsyncClient(base_url=url, timeout=5) as client,
        anyio.create_task_group() as group,
    ):
        for _ in range(AT_ONCE):
            group.start_soon(pay, client, left)


async def scores(url: str, every: list[Payment]) -> list[dict[str, Any]]:
    """Wait for the score of each payment."""
    found = []
    async with httpx2.AsyncClient(base_url=url, timeout=5) as client:
        for payment in every:
            answer = await until_answered(client, "GET", f"/payments/{payment.key}")
            while answer.status_code == 404:
                await anyio.sleep(PAUSE)
                answer = await until_answered(client, "GET", f"/payments/{payment.key}")
            found.append(answer.json())
    return found


async def main(url: str, count: int) -> None:
    every = payments(count, seed=random.randrange(10**9))
    await pay_all(url, every)
    found = await scores(url, every)
    alerts = [row for row in found if row["alert"]]
    print(f"{len(found):,} payments scored, {len(alerts):,} alerts")
    for row in alerts[:10]:
        print(f"  {row['card']}: {row['cents'] / 100:,.2f} at {row['merchant']}: {row['reasons']}")


if __name__ == "__main__":
    anyio.run(main, sys.argv[1], int(sys.argv[2]))
