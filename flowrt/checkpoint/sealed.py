"""A JSON document with its own checksum: readable by people, and damage never goes unseen."""

from __future__ import annotations

from hashlib import blake2b

import msgspec

from flowrt.contract.errors import CheckpointError

_HEX = 32


def seal(name: str, body: bytes) -> bytes:
    """Return JSON with a checksum in front of `body` (JSON too), which is called `name`."""
    return seal_as_it_is(name, msgspec.json.format(body, indent=2))


def seal_as_it_is(name: str, body: bytes) -> bytes:
    """Do what `seal` does for a body that is laid out for people already."""
    return _front(name, _checksum(body)) + body + b"\n}\n"


def unseal(name: str, data: bytes, path: str) -> bytes:
    """Return the body that `seal` was given; `CheckpointError` where any byte is not as it was."""
    start = len(_front(name, "0" * _HEX))
    body = data[start:-3]
    if data != _front(name, _checksum(body)) + body + b"\n}\n":
        raise CheckpointError(f"{path} is torn or damaged: its bytes do not fit its checksum")
    return body


def _front(name: str, checksum: str) -> bytes:
    return f'{{\n"checksum": "{checksum}",\n"{name}": '.encode()


def _checksum(body: bytes) -> str:
    return blake2b(body, digest_size=_HEX // 2).hexdigest()
