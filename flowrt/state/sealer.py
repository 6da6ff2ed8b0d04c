"""Sealing for one state: values to stored forms and back, with errors that say where."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from flowrt.contract.errors import StateError
from flowrt.state.ages import TimedCodec, without_time
from flowrt.state.blocks import Place
from flowrt.state.classes import Unfit
from flowrt.state.codec import Codec
from flowrt.state.key_groups import key_group
from flowrt.state.sealed import Sealed


class Sealer:
    """Seals and unseals the values of one state."""

    __slots__ = ("_quick", "codec", "place", "restore")

    def __init__(self, place: Place, codec: Codec) -> None:
        self.place = place
        self.codec = codec
        self._quick = codec.quick
        self.restore: Callable[[bytes], Any] = (
            codec.restore if isinstance(codec, TimedCodec) else self._without_time
        )
        """Returns the stored form from its bytes; `Unfit` where they do not fit."""

    def seal(self, key: Any, value: Any) -> Any:
        """Return the form to store; `StateError` if there is none."""
        if type(value) in self._quick:
            return value
        try:
            return self.codec.seal(value)
        except Unfit as error:
            raise self.place.error(error, key) from error

    def unseal(self, stored: Any) -> Any:
        """Return the value of a stored form; `StateError` where it does not fit the type."""
        if type(stored) is not Sealed:
            return stored
        try:
            return self.codec.unseal(stored)
        except Unfit as error:
            raise self.place.error(error) from error

    def _without_time(self, data: bytes) -> Any:
        return self.codec.restore(without_time(data))

    def group(self, key: Any) -> int:
        """Return the group of a key; `StateError` for one that cannot be stored."""
        try:
            return key_group(key)
        except StateError as error:
            raise self.place.error(error) from error
