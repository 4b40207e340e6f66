"""The record of tests of explanations: whether maps can be believed, and where they hold evidence."""

from __future__ import annotations

from typing_extensions import TypedDict

from hilum.values.record_schema import FailedCase, RecordSchema
from hilum.values.table_cells import PlainCell


class TestedFigure(TypedDict):
    """The mean of a measure over cases, with its interval."""

    value: float | None
    low: float | None
    high: float | None
    n: int
    method: str


class MethodRecord(TypedDict, total=False):
    """What tests found of a method of explanation; passed: null where a test could not be made.

    Gains of deletion and insertion are those over random maps and over an edge filter; pointing, energy and area are of
    cases with references.
    """

    passed: bool | None
    because: str
    randomisation: TestedFigure
    stability: TestedFigure
    deletion: TestedFigure
    insertion: TestedFigure
    deletion_over_random: TestedFigure
    insertion_over_random: TestedFigure
    deletion_over_edges: TestedFigure
    insertion_over_edges: TestedFigure
    pointing: TestedFigure
    energy: TestedFigure
    area: TestedFigure


class PlaceRow(TypedDict):
    """Evidence in a kind of place beside the area of that; p is by permutation, adjusted after Holm."""

    kind: str
    share: float
    area: float
    p: float
    cases: int
    target: str


class PlaceFinding(PlaceRow):
    """A place where the maps of a method hold evidence."""

    method: str


class ExplanationsRecord(TypedDict, total=False):
    """Whether maps of what an answer rests on can be believed, by method, and why other methods cannot be.

    sha256, tests: of the model that was explained or tested, and the version of the tests
    findings:      where the maps of all cases hold evidence; covariates: how much lower a score is without each
    rows:          of `explanations.csv`
    """

    sha256: str
    tests: int | None
    methods: dict[str, MethodRecord]
    refused: dict[str, str]
    findings: list[PlaceFinding]
    covariates: dict[str, dict[str, float]]
    failed: list[FailedCase]
    files: list[str]
    unfinished_training: str
    rows: list[dict[str, PlainCell]]


EXPLANATIONS_SCHEMA = RecordSchema("hilum.explanations", ExplanationsRecord)
