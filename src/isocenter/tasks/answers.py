"""Parts of the protocol `Task`: traits, teaching, decoding and scoring, each a value."""

from __future__ import annotations

from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Any, Literal, Protocol

from isocenter.evaluation import CaseValues, Seed, Table, column_values
from isocenter.report import Figure
from isocenter.tasks.shared import Shares
from isocenter.values import (
    Array,
    Case,
    Finding,
    Geometry,
    Label,
    Merge,
    Prediction,
    Row,
    Slabs,
    Split,
)

if TYPE_CHECKING:
    from torch import Tensor

    from isocenter.tasks.task import Task

Outputs = Mapping[str, "Tensor"]
# Whose cases decide after training: none of them trained, they trained, or they are of another site.
Origin = Literal["unseen", "training", "site"]
# The columns of `predictions.csv`, or several rows of them.
Columns = Mapping[str, Any] | Sequence[Mapping[str, Any]]


class Average(Protocol):
    """One output, (batch, channels, ...) a head, for those of several networks or mirrored views. No torch here."""

    def __call__(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """shares: the weight of each of them, in sum 1; None where all weigh alike"""


class Summary(Protocol):
    """Estimates with intervals from the scores of cases; the row over all labels first."""

    def __call__(self, table: Table, *, seed: Seed) -> list[Row]:
        """seed: of the resampling of patients"""


@dataclass(frozen=True)
class Traits:
    """The facts of a kind of problem that hold for all its settings; the defaults suit most kinds.

    tunes:         the settings that cases find after training, each None until then
    tuned_on:      the parts of which the first that has cases decides after training
    alternatives:  sets of kinds of reference, each of which teaches something; empty: all that the task needs
    cascades:      whether its result is a map of its labels, which a second network can get as an input
    """

    tuned_on: tuple[Split, ...] = ("val",)
    alternatives: tuple[frozenset[str], ...] = ()
    cascades: bool = False


def _unchanged(outputs: Outputs) -> Outputs:
    return outputs


def _a_single_one(cases: Sequence[Case]) -> int:
    return 1


@dataclass(frozen=True)
class Teaching:
    """The metric that selects checkpoints, and what else training needs besides targets and loss.

    selects_by:      the metric of `selection`
    quality:         (outputs, target) to (batch, ...) numbers from which `selection` makes its metric; of a dense head
                     they add up over its parts
    selection:       the metric by which checkpoints are compared, higher is better, from the numbers of all validation
                     cases
    outside:         the value of its label maps beyond the image; None where their edge goes on as the image's does
    terms:           {name: first values} of numbers of the loss that are learnt with the weights; `Task.loss` gets them
                     as tensors among the outputs
    uncut:           the reason why no patch may cut structures; empty where any may
    weighs_classes:  whether a class decides how much its cases count, so that losses by class do not add up to it
    natural:         outputs to what they are of cases as they come, where training draws them otherwise
    fewest:          the training cases to the number that a batch has at the fewest, however few steps the time allows
    averaged_over:   the training cases to the number of terms of which their loss is the mean
    """

    selects_by: str
    quality: Callable[[Outputs, Any], Mapping[str, Tensor]]
    selection: Callable[[Mapping[str, Tensor]], float]
    outside: int | None = None
    terms: Mapping[str, Sequence[float]] = field(default_factory=dict)
    uncut: str = ""
    weighs_classes: bool = False
    natural: Callable[[Outputs], Outputs] = _unchanged
    fewest: Callable[[Sequence[Case]], int] = _a_single_one
    averaged_over: Callable[[Sequence[Case]], int] = len


@dataclass(frozen=True)
class Decoding:
    """The steps from outputs of a network to a result. It travels with packages, and works without torch.

    merge:           where overlapping windows lie, and their weights
    mirrored:        what each channel of its head becomes when left and right change sides; a target's values are the
                     first. None where a mirrored image would show what no patient has: a named side without counterpart
    average:         one output for those of several networks
    probabilities:   outputs of one case or slab to probabilities, (channels, ...) or one a label of a vector; a task
                     that measures has none and gives the numbers that it decodes, scaled as its training cases
    decode:          finished parts of the source grid, in order, to a result
    outputs:         the columns of `predictions.csv`; several rows where a case has several results, never none
    averaged:        the heads of which `average` takes the mean of probabilities; of all others that of outputs
    sides:           {head: as `mirrored`}, where heads differ in it
    parts:           {name: task} that it is made of, as `Prediction.parts`
    channel_labels:  the meaning of the channels of its dense head, where those are not its labels
    bytes_per_voxel: memory for each voxel of the image while it decodes; None: that of a label
    exclusive:       whether outputs are classes, of which the largest wins
    targets:         what `Task.saliency` takes by name: classes, findings, structures, values
    marks:           {target: values by which label maps mark it}, where those are not its label's own
    picks:           whether a case's answer is one of them; else it is all of them together
    crossed:         {head: networks} of which it takes what each of so many says, beside their mean
    uncertainty:     what probabilities state: "classes" of which one is right, "labels" each of which is there or not,
                     "objects" in whose voxels the first outputs are that, "boxes" in whose centres they are, or
                     "values"; empty for a task whose parts state theirs
    measured:        (batch, outputs) to (batch, 1) the number whose variance is stated, of arrays and tensors alike;
                     None where outputs are values themselves
    log_odds:        what is added to outputs of boxes before they are log odds
    states_evidence: whether outputs alone say what part of it is epistemic: by concentrations of a Dirichlet
                     distribution, whose logarithms they are, or by a normal inverse-gamma one
    """

    merge: Merge
    mirrored: tuple[int, ...] | None
    average: Average
    probabilities: Callable[[Mapping[str, Array]], Mapping[str, Array]]
    decode: Callable[[Slabs, Geometry], Prediction]
    outputs: Callable[[Prediction], Columns]
    averaged: Collection[str] = ()
    sides: Mapping[str, tuple[int, ...] | None] | None = None
    parts: Mapping[str, Task] = field(default_factory=dict)
    channel_labels: tuple[Label, ...] | None = None
    bytes_per_voxel: int | None = None
    exclusive: bool = True
    targets: tuple[str, ...] = ()
    marks: Mapping[str, tuple[int, ...]] = field(default_factory=dict)
    picks: bool = False
    crossed: Mapping[str, int] = field(default_factory=dict)
    uncertainty: Literal["", "classes", "labels", "objects", "boxes", "values"] = ""
    measured: Callable[[Any], Any] | None = None
    log_odds: float = 0.0
    states_evidence: bool = False


@dataclass(frozen=True, eq=False)
class Guess:
    """The table of cases of a guess that looks at no image, with which a model is compared.

    words:   what is guessed, as "always calling benign"; {part: that} of several tasks, "" where there is one
    metrics: by which the model is compared with it, the main one first
    """

    table: Table
    words: Mapping[str, str]
    metrics: tuple[str, ...]


class Aligned(Protocol):
    """Predictions of another network of the same plan, as if its outputs had the zero of the model's."""

    def __call__(
        self, predictions: Sequence[Prediction], theirs: Sequence[Prediction], ours: Sequence[Prediction]
    ) -> list[Prediction]:
        """theirs, ours: of the same cases, by that network and by the model; all before anything was decided"""


def _no_guess(table: Table) -> None:
    return None


def _as_they_are(cases: Sequence[Case]) -> tuple[Sequence[Case], Sequence[str]]:
    return cases, ()


def _none_undrawn(table: Table) -> Sequence[str]:
    return ()


def _one_table(table: Table) -> Mapping[str, Table]:
    return {"": table}


@dataclass(frozen=True)
class Scoring:
    """The comparison of predictions with references, and its pictures in reports.

    primaries: the metrics of `summary` that a plan may name as primary, with these settings
    score:    one row a case and label: case, patient, label, then the scores
    summary:  estimates with intervals; the row over all labels first
    rank:     case ids from best to worst
    figures:  pictures of one case, for the report's best, median and worst
    overview: charts of all cases
    results:  the findings of one prediction, for a structured report
    guess:    a table of cases to that of a guess without images; None where nothing can be guessed, as with masks
    aligned:  brings predictions of several networks together; None where their outputs have one zero by themselves
    tables:   a table of cases to {part: its rows, with its own labels and columns} of a task that is made of tasks
    case_values: a table of cases to what its figures are made of, by which models are tested; those that are means of
              columns of the same name need nothing said
    probable_findings: names of those of `results` that have a probability
    own_labels: cases to the same with references under the task's own numbers, and sentences on labels that one side
              lacks; DatasetError where references hold what cannot be matched
    undrawn:  a table of cases to the labels that no reference holds
    positives: the classes that sensitivity, predictive values and the like are of; empty of a task without classes
    """

    primaries: frozenset[str]
    score: Callable[[Sequence[Prediction], Sequence[Case]], Table]
    summary: Summary
    rank: Callable[[Table], list[str]]
    figures: Callable[[Prediction, Case], list[Figure]]
    overview: Callable[[Table], list[Figure]]
    results: Callable[[Prediction], list[Finding]]
    guess: Callable[[Table], Guess | None] = _no_guess
    tables: Callable[[Table], Mapping[str, Table]] = _one_table
    case_values: Callable[[Table], Sequence[CaseValues]] = column_values
    aligned: Aligned | None = None
    probable_findings: tuple[str, ...] = ()
    own_labels: Callable[[Sequence[Case]], tuple[Sequence[Case], Sequence[str]]] = _as_they_are
    undrawn: Callable[[Table], Sequence[str]] = _none_undrawn
    positives: tuple[str, ...] = ()
