"""Classes in snapshots: written by name, found again only among those already loaded.

A snapshot is data: nothing is ever imported because a snapshot names it.
"""

from __future__ import annotations

import dataclasses
import sys
from collections.abc import Callable
from enum import Enum
from operator import attrgetter
from typing import Any, Final, TypeAlias

import msgspec


class Unfit(Exception):
    """A value cannot be stored, or stored bytes cannot be read; whoever knows the place adds it."""


FieldReader: TypeAlias = Callable[[Any], tuple[Any, ...]]


def class_name(cls: type) -> str:
    """Return how messages and snapshots name a class: "module:qualname"."""
    return f"{cls.__module__}:{cls.__qualname__}"


def find_class(name: str) -> type:
    """Return a loaded class of this name that state may hold; `Unfit` where there is none."""
    module_name, _, path = name.partition(":")
    module = sys.modules.get(module_name)
    if module is None:
        raise _not_found(name, f"module {module_name!r} is not loaded")
    found: Any = module
    for part in path.split("."):
        # vars, not getattr: a module or metaclass may run code for a name that it does not have.
        if found is module or isinstance(found, type):
            found = vars(found).get(part)
    if not isinstance(found, type) or not (is_record(found) or issubclass(found, Enum)):
        raise _not_found(name, f"module {module_name!r} has no such class")
    return found


def _not_found(name: str, why: str) -> Unfit:
    return Unfit(
        f"class {name} was stored, and {why}: import it before the flow starts. If it was renamed "
        "or moved, give the state migrate=, or keep the old name in its module (Old = New)"
    )


_findable: Final[set[type]] = set()


def check_findable(cls: type) -> None:
    """Raise `Unfit` unless `find_class` will find this very class by its name."""
    if cls in _findable:
        return
    try:
        found = find_class(class_name(cls))
    except Unfit:
        found = None
    if found is not cls:
        raise Unfit(
            f"class {class_name(cls)} cannot be found again by its name: define it at the top of a "
            "module, or declare the state with type="
        )
    _findable.add(cls)


# The module uuid is out of bounds for its randomness; the class alone, loaded by msgspec, has none.
UUID: Final[type] = vars(sys.modules["uuid"])["UUID"]


def is_named_tuple(cls: type) -> bool:
    """Say whether a class is a NamedTuple."""
    return issubclass(cls, tuple) and isinstance(getattr(cls, "_fields", None), tuple)


def is_record(cls: type) -> bool:
    """Say whether a class has declared fields: a dataclass, a msgspec Struct or a NamedTuple."""
    return dataclasses.is_dataclass(cls) or issubclass(cls, msgspec.Struct) or is_named_tuple(cls)


def is_frozen(cls: type) -> bool:
    """Say whether the fields of a record's class cannot be set."""
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_config__.frozen
    if dataclasses.is_dataclass(cls):
        return bool(vars(cls)["__dataclass_params__"].frozen)
    return is_named_tuple(cls)


def has_value_equality(cls: type) -> bool:
    """Say whether instances of a record's class with equal fields are equal."""
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_config__.eq
    if dataclasses.is_dataclass(cls):
        return bool(vars(cls)["__dataclass_params__"].eq)
    return is_named_tuple(cls)


def field_names(cls: type) -> tuple[str, ...]:
    """Return the names of a record's fields, in order."""
    if issubclass(cls, msgspec.Struct):
        return cls.__struct_fields__
    if dataclasses.is_dataclass(cls):
        return tuple(field.name for field in dataclasses.fields(cls))
    names: tuple[str, ...] = cls._fields  # type: ignore[attr-defined]
    return names


def field_reader(cls: type) -> FieldReader:
    """Return a quick function from a record to the tuple of its fields."""
    names = field_names(cls)
    if len(names) > 1:
        return attrgetter(*names)
    if not names:
        return lambda _record: ()
    one = attrgetter(*names)
    return lambda record: (one(record),)


def make_record(cls: type, values: dict[str, Any]) -> Any:
    """Make a record from stored fields; `Unfit` where one is gone, or new and has no default."""
    gone = [name for name in values if name not in field_names(cls)]
    if gone:
        raise Unfit(
            f"a stored {class_name(cls)} has a field {gone[0]!r}, and the class has none: give the "
            "state migrate=, or keep the field"
        )
    if not dataclasses.is_dataclass(cls):
        known = {name: values[name] for name in field_names(cls) if name in values}
        try:
            return cls(**known)
        except TypeError as error:
            raise Unfit(f"a stored {class_name(cls)} cannot be made again: {error}") from error
    # As msgspec does: no __init__, for fields may be set later; then __post_init__.
    record = object.__new__(cls)
    for field in dataclasses.fields(cls):
        if field.name in values:
            value = values[field.name]
        elif field.default is not dataclasses.MISSING:
            value = field.default
        elif field.default_factory is not dataclasses.MISSING:
            value = field.default_factory()
        else:
            raise Unfit(
                f"a stored {class_name(cls)} has no field {field.name!r}: give that field a default"
            )
        object.__setattr__(record, field.name, value)
    after = getattr(record, "__post_init__", None)
    if after is not None:
        after()
    return record
