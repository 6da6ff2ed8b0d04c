"""Sizes as text: "128MB", "64MiB"."""

from __future__ import annotations

import re
from typing import Any, Final

from flowrt.contract.errors import ConfigError

_UNITS: Final = {
    "b": 1,
    "kb": 10**3,
    "mb": 10**6,
    "gb": 10**9,
    "kib": 2**10,
    "mib": 2**20,
    "gib": 2**30,
}


def size_bytes(size: Any) -> int:
    """Return a size in bytes: a number, or text such as "128MB" (10^6) or "64MiB" (2^20).

    `ConfigError` for anything else, and for less than one byte.
    """
    match = re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([kmg]?i?b)\s*", str(size), re.IGNORECASE)
    if isinstance(size, str) and match and match[2].lower() in _UNITS:
        size = int(float(match[1]) * _UNITS[match[2].lower()])
    if not isinstance(size, int) or size < 1:
        raise ConfigError(f"{size!r} is not a size: use a number of bytes or text such as '128MB'")
    return size
