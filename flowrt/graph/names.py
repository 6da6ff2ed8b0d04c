"""What a flow, a source, a step or a sink may be called."""

from __future__ import annotations

import re

from flowrt.contract.errors import GraphError

_NAME = re.compile(r"[A-Za-z0-9_](?:[A-Za-z0-9_.-]{0,98}[A-Za-z0-9_])?")


def check_name(name: object, what: str) -> str:
    """Return `name` where it can be one, else `GraphError`; `what` says whose name it is.

    A name is 1 to 100 letters, digits, "_", "-" and "." of ASCII, with no "-" or "." at either end:
    it becomes part of file names, on every system.
    """
    if isinstance(name, str) and _NAME.fullmatch(name):
        return name
    raise GraphError(
        f"{what} cannot be named {name!r}: use 1 to 100 letters, digits, '_', '-' and '.', "
        "with no '-' or '.' at either end (names become part of file names)"
    )
