"""What `model.json` says of parts that are found after training; their arrays lie in files of their own."""

from __future__ import annotations

from typing_extensions import TypedDict


class AnsweringSettings(TypedDict):
    """The least sureness with which a model answers, and the errors that this allows; null where nothing reaches it."""

    error: float
    delta: float
    least: float | None
    cases: int
    enough: int | None


class PartSettings(TypedDict):
    """SHA-256 of the file with the arrays of a part."""

    sha256: str


class DirectionsSettings(PartSettings):
    """Directions along which training images differ: of so many patients."""

    patients: int


class GateSettings(PartSettings):
    """The gate: words and ranges of numbers of training images, and the share of each score in the level."""

    level: float
    exact: bool
    words: dict[str, dict[str, int]]
    numbers: dict[str, list[float]]
    trained: int
    unseen: int
    answers: AnsweringSettings | None
    shares: dict[str, float]
    skipped: list[int]


class PartsRecord(TypedDict, total=False):
    """The parts that a model has."""

    guard: GateSettings
    laplace: PartSettings
    directions: DirectionsSettings
