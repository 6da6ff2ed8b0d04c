"""Orders in euros: one that cannot be read stops nobody, and comes again once it is mended.

    flowrt run examples.bad_orders:flow --param folder=shop --checkpoints checkpoints
    flowrt deadletters list shop/letters
    flowrt deadletters replay shop/letters --into shop/again

The orders are the files in `orders/`. Those that cannot be read go to `letters/`, exactly once.
Mend the rates, feed the letters back, and the flow, which watches `again/`, takes them up.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from flowrt import DeadLetter, FileSink, FileSource, Flow, OnError, OutputTag

BAD: OutputTag[DeadLetter] = OutputTag("bad")


def flow(folder: Path = Path("shop")) -> Flow:
    """Turn amounts into euros and add them up by customer."""
    (folder / "again").mkdir(parents=True, exist_ok=True)

    def euros(order: dict[str, Any]) -> tuple[str, float]:
        # Read anew for each order: rates may be mended while the flow runs.
        rates = json.loads((folder / "rates.json").read_text(encoding="utf-8"))
        return order["customer"], order["amount"] / rates[order["currency"]]

    flow = Flow("orders", on_error=OnError.dead_letter(BAD))
    orders = flow.source(FileSource[dict[str, Any]](folder / "orders", watch=True), name="orders")
    again = flow.source(FileSource[dict[str, Any]](folder / "again", watch=True), name="again")
    (
        orders.union(again)
        .map(euros, name="euros")
        .key_by(lambda order: order[0])
        .sum(lambda order: order[1], name="total")
        .sink(FileSink(folder / "totals"), name="totals")
    )
    flow.dead_letters(BAD).sink(FileSink(folder / "letters"), name="letters")
    return flow
