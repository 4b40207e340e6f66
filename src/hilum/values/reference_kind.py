"""A kind of reference as one value: what is measured of it, checked in it, and how cases are spread by it."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Never, TypedDict

from hilum.values import slabs
from hilum.values.bounding_boxes import BoundingBoxes
from hilum.values.dataset_cases import Case, Dataset, Problem
from hilum.values.dataset_fingerprint import Fingerprint
from hilum.values.voxel_images import Array, Image

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue


@dataclass(frozen=True, eq=False)
class CaseReference:
    """One reference of one case, read once, with the image that it belongs to.

    name:  under which the case has it
    value: as in `Case.references`; an Image has its voxels read
    valid: (channels, *spatial) where the image holds measurements
    """

    case: str
    name: str
    value: Any
    image: Image
    valid: Array


@dataclass(frozen=True)
class ReferenceMeasures:
    """Measures of one reference, taken when its case is read: the fields of `CaseFacts` of the same names.

    summary:    what `CaseFacts.references` keeps of it
    foreground: None where the kind says nothing of single voxels
    specks:     whether tiny pieces lie apart from the rest of their structure
    apart:      {value: (axis, contoured slices, empty slices between)} of structures that were not contoured throughout
    """

    summary: Any
    foreground: tuple[Mapping[str, float], ...] | None = None
    thickness: Mapping[int, float] = field(default_factory=dict)
    elongation: Mapping[int, float] = field(default_factory=dict)
    components: Mapping[int, int] = field(default_factory=dict)
    kinds: Mapping[int, str] = field(default_factory=dict)
    places: Mapping[int, tuple[float, float]] = field(default_factory=dict)
    specks: bool = False
    apart: Mapping[int, tuple[int, tuple[int, ...], tuple[int, ...]]] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class Cohort:
    """A data set and what was measured of its cases."""

    dataset: Dataset
    fingerprint: Fingerprint

    @property
    def training(self) -> Fingerprint:
        """The fingerprint of the cases that train by the set's own split; of all where it has none."""
        splits = self.dataset.splits
        return self.fingerprint.only({case.id for case in self.dataset if splits.get(case.id, "train") == "train"})

    def summaries(self, kind: str) -> dict[str, Any]:
        """{case id: summary of its reference of this kind}, of the cases that have one."""
        return self.fingerprint.summaries(kind)


class TargetMeasures(TypedDict):
    """What is measured of a target image: by channel, and how it depends on its input; scale: how much finer it is."""

    mean: list[float]
    deviation: list[float]
    low: list[float]
    high: list[float]
    channels: list[str]
    modality: str
    scale: list[int]
    measured: float
    same_unit: bool
    other_unit: bool
    shift: list[float]
    equal: bool


def summarise_reference(reference: CaseReference) -> ReferenceMeasures:
    """The value itself; of an image {value: voxels}."""
    value = reference.value
    return ReferenceMeasures(slabs.label_voxels(value.data) if isinstance(value, Image) else value)


def _nothing(*_: Any) -> Iterator[Any]:
    return iter(())


def _empty(_: object) -> dict[str, Never]:
    return {}


def _plain(summary: Any) -> Any:
    """The summary itself where JSON can hold it."""
    return summary if isinstance(summary, str | int | float | Mapping) else None


def _itself(cell: Any) -> Any:
    return cell


def placed_value(value: Any) -> Image | BoundingBoxes | None:
    """The value itself where it has a place in its image: a map, or boxes."""
    return value if isinstance(value, Image | BoundingBoxes) else None


@dataclass(frozen=True)
class ReferenceFacts:
    """The facts that a kind of reference states and measures.

    measure:     of one case
    answers:     {name: answer} that a summary gives on the image as a whole; the name is empty where there is only one.
                 A class or finding is text, a measurement (number, whether it is reached): False for a time until which
                 nothing happened
    is_measured: whether answers are numbers
    amounts:     {name: number} of what a summary holds in the image: boxes, objects or voxels of each name
    recorded:    what `check.json` keeps of a summary, in plain values; None for nothing. Without it the summary itself
    of_cell:     the value that a cell of a table states; ValueError where it states none. For kinds of other packages,
                 each of which is a role of a table's columns
    counted:     what a model's record keeps of all training cases, in plain values, without naming a case
    """

    measure: Callable[[CaseReference], ReferenceMeasures] = summarise_reference
    answers: Callable[[Any], Mapping[str, Any]] = _empty
    is_measured: bool = False
    amounts: Callable[[Any], Mapping[str, int]] = _empty
    recorded: Callable[[Any], Any] = _plain
    of_cell: Callable[[Any], Any] = _itself
    counted: Callable[[Fingerprint], Mapping[str, PlainValue]] = _empty


@dataclass(frozen=True)
class ReferenceChecks:
    """Findings about references.

    unusable: why a case with this reference cannot be used at all
    odd:      what is odd about one that can be used
    cohort:   what shows only when all cases are compared; an error here ends the check
    """

    unusable: Callable[[CaseReference], Iterator[Problem]] = _nothing
    odd: Callable[[CaseReference, ReferenceMeasures], Iterator[Problem]] = _nothing
    cohort: Callable[[Cohort], Iterator[Problem]] = _nothing


@dataclass(frozen=True)
class ReferenceStrata:
    """The strata from which the parts of a split are sampled alike.

    names: {case id: strata that it lies in}, of the cases with such a reference
    rank:  kinds of the lowest rank that name a stratum of a case decide; kinds of one rank do so jointly
    words: what every part has its share of
    """

    names: Callable[[Sequence[Case]], Mapping[str, Sequence[str]]]
    rank: int = 0
    words: str = "each class"


@dataclass(frozen=True)
class ReferenceWords:
    """Words and figures about a kind of reference.

    plural:   as in "the same image with different classes"
    question: in front of "by ... alone", with {name} for that of the answer
    lines:    {line: text} of what `check` says is there
    charts:   figures (of `hilum.report`) for the page of `check`
    outlined: what of a value a figure outlines on its image; None for what has no place in it
    """

    plural: str = ""
    question: str = "{name} can be told"
    lines: Callable[[Cohort], Mapping[str, str]] = _empty
    charts: Callable[[Cohort], Iterator[Any]] = _nothing
    outlined: Callable[[Any], Image | BoundingBoxes | None] = placed_value


@dataclass(frozen=True)
class ReferenceKind:
    """A kind of reference, under one name of `Case.references`: how it is measured, checked and spread.

    A new kind is one file that makes one of these, and one line in an index: in `quality/references/__init__.py`, or in
    another package under the entry point `hilum.references`, with the name of the kind and "module:VALUE". Only the
    name is needed; every other field has a default that says nothing. For a side that is called left or right:

        def answers(side):
            return {"": str(side)}

        def strata(cases):
            return {case.id: [case.references["side"]] for case in cases if "side" in case.references}

        SIDE = ReferenceKind(
            "side",
            facts=ReferenceFacts(answers=answers),
            strata=ReferenceStrata(strata),
            words=ReferenceWords("sides", "the side can be told"),
        )

    is_image: its value is an image of intensities, and no label map
    Then `check` tries whether size, borders or the scanner give the side away, finds images that are there twice with
    different sides, and a split has its share of both.
    """

    name: str
    facts: ReferenceFacts = field(default_factory=ReferenceFacts)
    checks: ReferenceChecks = field(default_factory=ReferenceChecks)
    strata: ReferenceStrata | None = None
    words: ReferenceWords = field(default_factory=ReferenceWords)
    is_image: bool = False
