"""The shape of a declared type: its fields and their types, as plain data that a snapshot keeps.

A restore compares the shapes that states were written with to those declared now, so that a field
that is gone, or has another type, is told before any record moves.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final, TypeAlias

from msgspec import inspect

from flowrt.state.classes import class_name

Shape: TypeAlias = Any
"""Text for a simple type; [name, shapes...] for one of others; a dict for a record.

A record's has `record` (the class), `fields` (name to shape), `defaults` (the names of those that
may be missing), and `positional` where it is encoded without names. A class within itself has
`record` alone.
"""

UNDECLARED: Final = "undeclared"
"""The shape of a state whose values say themselves what they are."""

_ITEMS: Final[dict[type, str]] = {
    inspect.ListType: "list",
    inspect.SetType: "set",
    inspect.FrozenSetType: "frozenset",
    inspect.VarTupleType: "tuple of any length",
    inspect.CollectionType: "collection",
}


def shape_of(declared: Any) -> Shape:
    """Return the shape of a declared type that has a codec; None is that of no type."""
    if declared is None or declared is Any or declared is object:
        return UNDECLARED
    try:
        return _shape(inspect.type_info(declared), ())
    except TypeError:  # complex, and what else only our own encoding knows
        return class_name(declared) if isinstance(declared, type) else repr(declared)


def _shape(info: inspect.Type, within: tuple[Any, ...]) -> Shape:
    match info:
        case inspect.StructType() | inspect.DataclassType() | inspect.TypedDictType():
            return _record(info, within)
        case inspect.NamedTupleType():
            return _record(info, within)
        case inspect.UnionType(types=types):
            return ["one of", *sorted((_shape(one, within) for one in types), key=repr)]
        case inspect.TupleType(item_types=types):
            return ["tuple", *[_shape(one, within) for one in types]]
        case inspect.DictType(key_type=key, value_type=value):
            return ["dict", _shape(key, within), _shape(value, within)]
        case inspect.EnumType(cls=cls) | inspect.CustomType(cls=cls):
            return class_name(cls)
        case inspect.LiteralType(values=values):
            return ["literal", *map(repr, values)]
        case inspect.Metadata(type=inner):
            return _shape(inner, within)
    if type(info) in _ITEMS:
        return [_ITEMS[type(info)], _shape(info.item_type, within)]  # type: ignore[attr-defined]
    return type(info).__name__.removesuffix("Type").lower()


def _record(info: Any, within: tuple[Any, ...]) -> Shape:
    cls = getattr(info.cls, "__origin__", info.cls)
    shape: dict[str, Any] = {"record": class_name(cls)}
    if cls in within:
        return shape
    fields = {field.encode_name: field for field in info.fields}
    shape["fields"] = {name: _shape(field.type, (*within, cls)) for name, field in fields.items()}
    shape["defaults"] = [name for name, field in fields.items() if not field.required]
    if isinstance(info, inspect.NamedTupleType) or getattr(info, "array_like", False):
        shape["positional"] = True
    if getattr(info, "tag", None) is not None:
        shape["tag"] = info.tag
    return shape


# ------------------------------------------------------------------------------------ changes


def changes(before: Shape, now: Shape) -> list[str]:
    """Return what keeps values of one shape from being read as the other; [] where nothing does.

    New fields with a default, and types that hold all that the old one held, keep nothing.
    """
    found = list(_changes(before, now, ""))
    if found and _is_record(before) and _is_record(now) and before["record"] != now["record"]:
        found.insert(0, f"class {before['record']} is {now['record']} now")
    return found


def _changes(before: Shape, now: Shape, at: str) -> Iterator[str]:
    if now in (before, "any") or before == UNDECLARED:
        return  # of what was undeclared each value says for itself whether it fits
    if _is_record(before) and _is_record(now):
        yield from _changes_of_fields(before, now, at)
    elif _widens(before, now):
        return
    elif (
        isinstance(before, list)
        and isinstance(now, list)
        and before[0] == now[0] not in ("literal", "one of")
        and len(before) == len(now)
    ):
        for one, other in zip(before[1:], now[1:], strict=True):
            yield from _changes(one, other, f"{at}[]")
    else:
        what = f"field {at!r}" if at else "its type"
        yield f"{what} was {text(before)} and is {text(now)} now"


def _changes_of_fields(before: Shape, now: Shape, at: str) -> Iterator[str]:
    if "fields" not in before or "fields" not in now:
        return  # told where the class came first
    old, new = before["fields"], now["fields"]
    prefix = f"{at}." if at else ""
    if before.get("positional", False) != now.get("positional", False):
        yield f"class {now['record']} is encoded by position now, or was before"
        return
    if before.get("tag") != now.get("tag"):
        yield f"the tag of class {now['record']} was {before.get('tag')} and is {now.get('tag')}"
    for name in old.keys() - new.keys():
        yield f"field {prefix + name!r} ({text(old[name])}) is gone"
    for name in new:
        if name in old:
            yield from _changes(old[name], new[name], prefix + name)
        elif name not in now["defaults"]:
            yield f"field {prefix + name!r} ({text(new[name])}) is new and has no default"
    if "positional" in now and [*old] != [*new][: len(old)] and old.keys() <= new.keys():
        yield f"the fields of class {now['record']}, which is encoded by position, moved"


def _widens(before: Shape, now: Shape) -> bool:
    if before == "int" and now == "float":
        return True
    if now == UNDECLARED:
        # What it says of itself is all there is: records would come back as dicts.
        return not _has_records(before)
    if not (isinstance(now, list) and now[0] == "one of"):
        return False
    options = before[1:] if isinstance(before, list) and before[0] == "one of" else [before]
    return all(any(not changes(one, other) for other in now[1:]) for one in options)


def _is_record(shape: Shape) -> bool:
    return isinstance(shape, dict)


def _has_records(shape: Shape) -> bool:
    if isinstance(shape, list):
        return any(map(_has_records, shape[1:]))
    return _is_record(shape) or ":" in shape


def text(shape: Shape) -> str:
    """Return a shape as a message shows it."""
    if _is_record(shape):
        return str(shape["record"]).partition(":")[2]
    if isinstance(shape, list):
        separator = " or " if shape[0] == "one of" else ", "
        inner = separator.join(map(text, shape[1:]))
        return inner if shape[0] == "one of" else f"{shape[0]}[{inner}]"
    return str(shape)
