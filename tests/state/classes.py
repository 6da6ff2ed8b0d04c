"""Classes that tests keep in state; at the top of a module, so that they are found again."""

from __future__ import annotations

from dataclasses import dataclass, field
from datetime import datetime, timedelta, tzinfo
from enum import Enum, IntEnum, IntFlag, StrEnum
from typing import Annotated, NamedTuple

import msgspec


class Color(Enum):
    RED = "r"
    GREEN = ("g", 1)


class Carrier(StrEnum):
    UNITED = "UA"


class Level(IntEnum):
    ONE = 1


class Access(IntFlag):
    READ = 1
    WRITE = 2


class Half(float, Enum):
    UP = 0.5


class Point(NamedTuple):
    x: int
    y: int = 0


@dataclass
class Basket:
    items: list[str] = field(default_factory=list)
    total: float = 0.0


@dataclass(frozen=True)
class Place:
    airport: str
    gate: int = 1


@dataclass(frozen=True)
class Labelled:
    id: int
    label: str = field(default="", compare=False)


@dataclass(frozen=True)
class Deep:
    place: Place
    ids: tuple[int, ...] = ()


@dataclass(frozen=True, eq=False)
class ByIdentity:
    id: int


@dataclass
class Watched:
    width: int
    area: int = field(init=False, default=0)

    def __post_init__(self) -> None:
        self.area = self.width**2


class Stats(msgspec.Struct, frozen=True):
    count: int = 0
    mean: float = 0.0


class Open(msgspec.Struct):
    names: set[str]


class Positive(msgspec.Struct, frozen=True):
    value: Annotated[int, msgspec.Meta(gt=0)]


class Outer:
    class Inner(msgspec.Struct, frozen=True):
        id: int


class Untold(tzinfo):
    """A time zone that cannot be stored."""

    def utcoffset(self, when: datetime | None) -> timedelta:
        return timedelta(0)

    def dst(self, when: datetime | None) -> None:
        return None

    def tzname(self, when: datetime | None) -> None:
        return None
