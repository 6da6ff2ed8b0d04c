"""Entries written with another type than the one declared now, brought into the form of today."""

from __future__ import annotations

import inspect
from collections.abc import Callable
from typing import Any, TypeAlias

from flowrt.contract.entries import (
    BATCH,
    WRITE,
    add_entry,
    kind_of,
    read_batch,
    read_entries,
    unwrap,
    wrap,
)
from flowrt.contract.snapshot import Block
from flowrt.state.ages import split_time
from flowrt.state.blocks import Place, restore_error
from flowrt.state.classes import Unfit
from flowrt.state.codec import Codec
from flowrt.state.keys import decode_key, encode_key
from flowrt.state.self_describing import encode, plain
from flowrt.state.shapes import UNDECLARED, Shape, changes

Migrate: TypeAlias = Callable[[Any], Any]


class Migration:
    """Brings the values of one state into its declared type.

    With `all_values` the function `migrate` makes each value anew; otherwise only those that do not
    fit as they are. `is_other`: it is known that they were written with another type.
    """

    def __init__(
        self,
        place: Place,
        codec: Codec,
        migrate: Migrate | None,
        *,
        is_other: bool,
        all_values: bool,
    ) -> None:
        self._place = place
        self._codec = codec
        self._migrate = migrate
        self._all_values = all_values
        self.is_needed = is_other
        """Whether what was stored is of another form than what is stored today."""

    def block(self, block: Block) -> Block:
        """Return a block with the same entries in the form of today; `StateError` naming a key."""
        data, entries = bytearray((kind_of(block),)), 0
        for entry in read_entries(block):
            if entry.operation == BATCH:
                for key, value in read_batch(block, entry.key, entry.value).items():
                    identity, _ = encode_key(key)
                    add_entry(data, WRITE, identity, value=self._value(encode(value), identity))
                    entries += 1
                continue
            value = entry.value
            if entry.operation == WRITE and entry.wrapped:
                own_key, own_name, value = unwrap(value)
                value = wrap(own_key, own_name, self._value(value, entry.key))
            elif entry.operation == WRITE:
                value = self._value(value, entry.key)
            add_entry(data, entry.operation, entry.key, entry.name, value, entry.wrapped)
            entries += 1
        return Block(block.state, block.group, entries, bytes(data))

    def _value(self, data: bytes, key: bytes) -> bytes:
        time, data = split_time(data)
        return time + self.value(data, lambda: decode_key(key))

    def value(self, data: bytes, key: Callable[[], Any]) -> bytes:
        """Return a value's bytes in the form of today; `StateError` naming the key."""
        codec = self._codec
        if self._migrate is None or not self._all_values:
            try:
                return bytes(codec.encode(codec.seal(codec.unseal(codec.restore(data)))))
            except Unfit as error:
                if self._migrate is None:
                    raise restore_error(self._place, error, key()) from error
        self.is_needed = True
        try:
            return bytes(codec.encode(codec.seal(_answered(self._migrate(plain(data))))))
        except Unfit as error:
            reason = f"what migrate returned cannot be stored: {error}"
            raise self._place.error(reason, key()) from error
        except Exception as error:
            reason = f"migrate failed: {type(error).__name__}: {error}"
            raise self._place.error(reason, key()) from error


def _answered(value: Any) -> Any:
    """Return what `migrate` returned; `Unfit` for something to await."""
    if inspect.iscoroutine(value):
        value.close()  # or Python warns that nobody awaited it
        raise Unfit("a coroutine, and migrate must be a plain function")
    return value


def migration(
    place: Place, codec: Codec, before: Shape | None, now: Shape, migrate: Migrate | None
) -> Migration | None:
    """Return what brings values into the declared type; None where they have it already.

    `before` is the shape that they were written with, None where nobody knows. `StateError` saying
    what changed where they cannot be brought there.
    """
    is_other = before is not None and before != now
    if not is_other and (migrate is None or now != UNDECLARED):
        return None
    found = changes(before, now) if is_other else []
    if found and migrate is None:
        raise place.error(
            f"the snapshot holds values of another type: {'; '.join(found)}. Declare the state "
            "with migrate=..., a function from the old value in builtins (a record as a dict) to a "
            "new one, or with the type that it had; or give it another name to begin anew"
        )
    return Migration(place, codec, migrate, is_other=is_other, all_values=bool(found))
