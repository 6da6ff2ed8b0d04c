"""Words behind numbers."""

from __future__ import annotations

from flowrt.contract.plural import plural


def test_one_thing_is_told_from_many() -> None:
    assert [plural(count, "part") for count in (0, 1, 2)] == ["parts", "part", "parts"]
    assert [plural(count, "entry") for count in (1, 2)] == ["entry", "entries"]
