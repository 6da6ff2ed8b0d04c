"""Layers of a table: one dict while that is small, and many where it would be large.

A dict that grows copies itself at once, and a large one for so long that it is felt. So a dict is
not let grow beyond `LARGE`; what comes then goes to a layer of many dicts. They have different
shares of the keys, for with equal ones they would all grow at the same time.
"""

from __future__ import annotations

from itertools import cycle
from typing import Any, Final, TypeAlias

Layer: TypeAlias = list[dict[Any, Any]]
"""A key is in the dict at `hash(key) % len(layer)`. A dict may stand there more than once."""

LARGE: Final = 128 * 1024
"""How many entries a layer's only dict may have, and those of one run of records. With 174,763 it
would copy itself for 5 to 10 ms, and twice as long at each growth after that."""

PLACES: Final = 1511
"""How many places a large layer has. Prime, so that keys with a common stride are spread too."""

SHARES: Final = range(16, 32)
"""How many places one dict takes, in turn: from one growth to the next it doubles, and so do these,
so that growths are spread evenly."""


def small_layer() -> Layer:
    """Return an empty layer, of one dict: there is nothing quicker."""
    return [{}]


def large_layer() -> Layer:
    """Return an empty layer of many dicts."""
    layer: Layer = []
    shares = cycle(SHARES)
    while len(layer) < PLACES:
        layer += [{}] * next(shares)
    return layer[:PLACES]


def is_full(layer: Layer) -> bool:
    """Say whether a large layer should take what comes next."""
    return len(layer) == 1 and len(layer[0]) > LARGE


def dict_of(layer: Layer, key: Any) -> dict[Any, Any]:
    """Return the dict in which a key is, if it is in the layer."""
    return layer[0] if len(layer) == 1 else layer[hash(key) % len(layer)]


def dicts_of(layer: Layer) -> list[dict[Any, Any]]:
    """Return the dicts of a layer, each once."""
    return list({id(entries): entries for entries in layer}.values())
