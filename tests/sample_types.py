"""Values of kinds that JSON has no word for: one of each sort that callers have."""

import collections
import dataclasses
import enum


class Colour(enum.Enum):
    RED = "red"
    NESTED = (1, "a")


class Level(enum.IntEnum):
    HIGH = 3


class Name(str, enum.Enum):
    ADA = "ada"


class Text(str):
    pass


class Whole(int):
    pass


class Mapped(dict):
    pass


@dataclasses.dataclass
class Point:
    x: int
    y: object = None


Pair = collections.namedtuple("Pair", "left right")
