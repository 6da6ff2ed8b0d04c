"""Key by: says what a record is about, so that state and order are kept for each key."""

from __future__ import annotations

from collections.abc import Callable, Hashable
from typing import Any

from flowrt.contract.steps import KeyBy
from flowrt.operators.arguments import check_plain


def key_by(fn: Callable[[Any], Hashable]) -> KeyBy:
    """Give each record the key `fn(value)`: hashable, and the same for the same record at any time.

    >>> step = key_by(lambda flight: flight["origin"])
    >>> step.fn({"origin": "JFK", "delay": 4})
    'JFK'
    """
    check_plain(fn, "key_by")
    return KeyBy(fn)
