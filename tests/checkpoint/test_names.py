"""File names: safe, told apart, and read back."""

from __future__ import annotations

import pytest

from flowrt.checkpoint.names import (
    Made,
    fence_name,
    manifest_name,
    parse_fence,
    parse_manifest,
    parse_state,
    safe,
    state_name,
)


def test_names_are_read_back() -> None:
    made = Made(generation=3, epoch=41)

    assert parse_manifest(manifest_name(made)) == made
    assert parse_fence(fence_name(made)) == made
    for kind in ("d", "m", "i"):
        assert parse_state(state_name("a-1-d2-3", 0, kind, made)) == made


@pytest.mark.parametrize("name", ["lease.json", "manifest-1-2.json.tmp", "x-0-d1-2.state.tmp", "x"])
def test_other_names_are_none(name: str) -> None:
    assert (parse_manifest(name), parse_fence(name), parse_state(name)) == (None, None, None)


def test_later_generations_and_then_later_epochs_are_greater() -> None:
    assert Made(2, 1) > Made(1, 9) > Made(1, 8)


def test_a_plain_id_stays_readable() -> None:
    assert safe("count_by_airport") == "count_by_airport"


def test_ids_that_a_file_system_would_mix_up_get_other_names() -> None:
    ids = ["Count", "count", "a/b", "a_b", "a b", "..", "x" * 200, "x" * 201, "größe", ""]
    names = [safe(operator) for operator in ids]

    assert len({name.casefold() for name in names}) == len(ids)
    assert all(len(name) < 100 and "/" not in name and "." not in name for name in names)
