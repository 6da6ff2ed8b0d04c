"""Stored forms: what never changes is stored as it is, anything else as its bytes."""

from __future__ import annotations

from datetime import date, timedelta
from decimal import Decimal
from typing import Final

from flowrt.state.classes import UUID

FAST: Final[frozenset[type]] = frozenset(
    {int, float, str, bytes, bool, type(None), complex, Decimal, date, timedelta, UUID}
)
"""Types whose values never change and can always be encoded: stored as they are."""


class Sealed(bytes):
    """The stored form of a value that could change: its bytes."""

    __slots__ = ()
