"""Value states in layers: none grows large, types come back as they were, batches or not."""

from __future__ import annotations

import math
from decimal import Decimal
from typing import Any

import pytest

from flowrt.contract.entries import BATCH, CLEAR, WRITE, read_entries
from flowrt.contract.errors import StateError
from flowrt.contract.snapshot import MISSING, Block
from flowrt.state import frozen, layers, table
from flowrt.state.key_groups import key_group
from flowrt.state.memory import MemoryBackend
from flowrt.state.table import ValueTable
from tests.state.kit import encoded, restored, snapshot

TOO_LONG = "x" * 256
VALUES: list[Any] = [
    *(0, 1, True, 1.0, -0.0, math.inf, None, "", "text", b"", b"\xff", TOO_LONG, "half \ud800"),
    *(2**64 - 1, 2**64, -(2**63), -(2**63) - 1, Decimal("1.0"), (1, "a"), [1], {"a": {1}}),
]


def same_group(count: int, group: int = 5) -> list[int]:
    """Ints of one key group."""
    return [key for key in range(count * 300) if key_group(key) == group][:count]


def contents(values: ValueTable) -> str:
    """Keys and values with their types: 1, True and 1.0 are equal, but not the same."""
    return repr(sorted(values.items(), key=repr))


def operations(blocks: list[Block]) -> list[int]:
    return [entry.operation for block in blocks for entry in read_entries(block)]


@pytest.mark.parametrize("value", VALUES, ids=repr)
def test_a_value_keeps_its_type_alone_and_among_others(value: Any) -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", None)
    first, *others = same_group(20)
    for key in others:
        values.put(key, "plain")
    values.put(first, value)

    again = restored(snapshot(backend)).table("s", None)

    assert contents(again) == contents(values)
    assert type(again.get(first)) is type(value)


@pytest.mark.parametrize("key", [1, True, 1.0, "1", b"1", 2**64, "half \ud800", TOO_LONG, (1,)])
def test_a_key_keeps_its_form_alone_and_among_others(key: Any) -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", int)
    for other in same_group(20, key_group(key))[1:]:
        values.put(other, 0)
    values.put(key, 1)

    again = restored(snapshot(backend)).table("s", int)

    assert contents(again) == contents(values)


def test_equal_keys_are_one_key_whatever_their_form() -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", int)
    files = []
    for number, key in enumerate([1, True, 1.0, 1, Decimal(1)]):
        values.put(key, number)
        files.append(snapshot(backend))

    again = restored(*files).table("s", int)

    assert list(again.items()) == [(1, 4)]


def test_plain_values_are_written_as_one_batch_for_a_group() -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", None)
    for key in same_group(50):
        values.put(key, key)

    (block,) = snapshot(backend)

    assert operations([block]) == [BATCH]
    assert block.entries == 50


def test_what_is_not_plain_stands_beside_the_batch() -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", None)
    keys = same_group(4)
    values.put(keys[3], "gone")
    files = [snapshot(backend)]
    values.put(keys[0], 1)
    values.put(keys[1], [1])
    values.put(keys[2], 2)
    values.delete(keys[3])

    files.append(snapshot(backend))

    assert sorted(operations(files[1])) == [WRITE, CLEAR, BATCH]
    assert files[1][0].entries == 4
    assert contents(restored(*files).table("s", None)) == contents(values)
    assert values.get(keys[3]) is MISSING
    assert values.size() == 3


@pytest.mark.parametrize("odd", [2**64, "half \ud800"])
def test_what_msgpack_cannot_carry_goes_one_by_one(odd: Any) -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", None)
    first, second, third = same_group(3)
    for key, value in [(first, 1), (second, odd), (third, 2)]:
        values.put(key, value)

    blocks = snapshot(backend)

    assert operations(blocks) == [WRITE] * 3
    assert contents(restored(blocks).table("s", None)) == contents(values)


def test_a_declared_float_is_one_after_a_restore() -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", float)
    values.put("a", 1)

    again = restored(snapshot(backend)).table("s", float)

    assert contents(again) == "[('a', 1.0)]"


def test_a_batch_fits_a_type_declared_later_or_is_refused() -> None:
    backend = MemoryBackend("orders")
    backend.table("s", None).put("a", 1)
    blocks = snapshot(backend)

    assert contents(restored(blocks).table("s", float)) == "[('a', 1.0)]"
    assert contents(restored(blocks).table("s", int | None)) == "[('a', 1)]"
    with pytest.raises(
        StateError, match=r"operator 'orders', state 's', key 'a': what the checkpoint holds cannot"
    ):
        restored(blocks).table("s", str)


def test_values_of_a_union_are_written_one_by_one() -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", int | None)
    values.put("a", 1)
    values.put("b", None)

    blocks = snapshot(backend)

    assert BATCH not in operations(blocks)
    assert contents(restored(blocks).table("s", int | None)) == "[('a', 1), ('b', None)]"


@pytest.fixture
def small_layers(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(layers, "LARGE", 100)
    monkeypatch.setattr(table, "SOME", 7)
    monkeypatch.setattr(table, "ROUND", 50)
    monkeypatch.setattr(frozen, "SLICE_NS", 1)


@pytest.mark.usefixtures("small_layers")
def test_a_large_layer_is_many_dicts_of_different_sizes() -> None:
    values = MemoryBackend("orders").table("s", int)

    for key in range(20_000):
        values.put(key, key)
        values.writable()

    sizes = {len(entries) for entries in values.writable()}
    assert max(sizes) < 20_000 / 40
    assert len(sizes) > 10
    assert values.size() == 20_000
    assert dict(values.items()) == {key: key for key in range(20_000)}


@pytest.mark.usefixtures("small_layers")
def test_reads_and_writes_find_their_layer_while_one_is_encoded() -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", int)
    model = {}
    for number, key in enumerate([*range(450), *range(50)]):
        values.put(key, number)
        model[key] = number
    frozen = backend.freeze()
    assert frozen is not None
    as_it_was = dict(model)

    blocks: list[Block] = []
    for step, slice_ in enumerate(frozen.encode()):
        blocks = slice_
        values.put(2 * step, -step)
        model[2 * step] = -step
        values.delete(2 * step + 251)
        model.pop(2 * step + 251, None)
        assert dict(values.items()) == model
        for key in range(500):
            assert values.get(key) == model.get(key, MISSING)

    assert dict(restored(blocks).table("s", int).items()) == as_it_was
    again = restored(blocks, snapshot(backend)).table("s", int)
    assert dict(again.items()) == dict(values.items()) == model


@pytest.mark.usefixtures("small_layers")
def test_what_grows_large_after_a_freeze_waits_for_the_next() -> None:
    backend = MemoryBackend("orders")
    values = backend.table("s", int)
    values.put("first", 1)
    frozen = backend.freeze()
    for key in range(300):
        values.put(key, key)

    blocks = encoded(frozen)

    assert dict(restored(blocks).table("s", int).items()) == {"first": 1}
    later = snapshot(backend)
    assert len(dict(restored(later).table("s", int).items())) == 300
    assert len(dict(values.items())) == 301


@pytest.mark.parametrize("key", [math.nan, object()])
def test_a_key_that_cannot_be_stored_is_told_at_its_first_use(key: Any) -> None:
    values = MemoryBackend("orders").table("s", int)

    for use in (lambda: values.cold(key), lambda: values.put(key, 1)):
        with pytest.raises(StateError, match="operator 'orders', state 's': the key "):
            use()
