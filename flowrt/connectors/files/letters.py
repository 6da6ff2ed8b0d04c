"""Dead letters as lines of JSON, whatever they hold: one bad record must not stop the flow here."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import fields
from typing import Any

from flowrt.contract.failures import text_of
from flowrt.contract.on_error import DeadLetter


def writable(letter: DeadLetter, flaw: Callable[[Any], str | None]) -> dict[str, Any]:
    """Return a letter in a form that JSON has; `flaw` says why a value has none, None if it has.

    A record without a form is kept as text, in `value_text`, with the reason in `value_error`: it
    can be read, and not be fed back. Its `value` is None then.
    """
    form = {field.name: getattr(letter, field.name) for field in fields(DeadLetter)}
    for name in ("operator", "error", "message", "traceback", "where"):
        if form[name] is not None:
            form[name] = _in_utf8(form[name])
    if flaw(letter.key) is not None:
        form["key"] = _in_utf8(text_of(letter.key))
    reason = flaw(letter.value)
    if reason is None:
        return form
    text = {"value_text": _in_utf8(text_of(letter.value)), "value_error": _in_utf8(reason)}
    del form["value"]
    return {"value": None, **text, **form}


def _in_utf8(text: str) -> str:
    """Return a text with what UTF-8 has no form for, such as half of a pair, escaped."""
    return text.encode(errors="backslashreplace").decode()
