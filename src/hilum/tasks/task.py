"""The base class of a kind of problem. No other room names a kind."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import dataclass, field
from types import MappingProxyType
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Self

import numpy as np

from hilum.belief import UnseenCases
from hilum.belief.covering_results import Belief
from hilum.evaluation import CaseValues, Metrics, Seed, Table
from hilum.evaluation.significance import paired_tests
from hilum.report import Figure
from hilum.tasks.shared.averages import Shares
from hilum.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Finding,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Image,
    Label,
    Measurements,
    Merge,
    Prediction,
    Prompts,
    Row,
    Slabs,
    Split,
    Target,
)
from hilum.values.table_cells import TableRow

if TYPE_CHECKING:
    from torch import Tensor

Outputs = Mapping[str, "Tensor"]
# Under this name a loss gets the images beside the outputs of the heads.
IMAGES = "images:"
# Whose cases decide after training: none of them trained, they trained, or they are of another site.
Origin = Literal["unseen", "training", "site"]
# The columns of `predictions.csv`, or several rows of them.
Columns = TableRow | Sequence[TableRow]
# What probabilities state: "classes" of which one is right, "labels" each of which is there or not, "objects" in whose
# voxels the first outputs are that, "boxes" in whose centres they are, or "values"; nothing of a task whose parts do.
Uncertain = Literal["", "classes", "labels", "objects", "boxes", "values"]


@dataclass(frozen=True)
class LabelPainting:
    """How training images of a kind of problem can be painted from its targets, whatever their contrast.

    shown:     for each channel the label that each value of a target shows, 0 the background; one for all channels
    decisions: that follow where they are painted, by "section.name"
    """

    shown: tuple[tuple[int, ...], ...]
    decisions: Mapping[str, Decision] = field(default_factory=dict)


@dataclass(frozen=True, eq=False)
class BlindGuess:
    """The table of cases of a guess that looks at no image, with which a model is compared.

    words:   what is guessed, as "always calling benign"; {part: that} of several tasks, "" where there is one
    metrics: by which the model is compared with it, the main one first
    """

    table: Table
    words: Mapping[str, str]
    metrics: tuple[str, ...]


class Task(ABC):
    """A kind of problem with its settings: a frozen dataclass, whose settings are declared as fields.

    Each has a type, a default and what its `Setting` says; `task_from_settings` makes a task of
    the plan's section "task". A kind answers what is abstract here, and where it differs from most kinds, the rest.

    needs:            the kinds of reference that teach it; of none, objectives that need no reference do
    tuned_on:         the parts of which the first that has cases decides after training
    alternatives:     sets of kinds of reference, each of which teaches something; empty: all that the task needs
    by_name:          whether it is learnt only where somebody names it, whatever references there are
    answers_features: whether its answer is the features that the network sees in an image
    takes_prompts:    whether its answer is of what a person points at
    answers_pairs:    whether its answer is of a pair of images, and so needs both of a case
    answers_measurements: whether its answer is of what a scanner measured, as channels of its operator
    loss_gets_images: whether `loss` and `quality` get the images, as the network saw them, as the output `IMAGES`
    own_maps:         names of the maps that its results are, as of `Prediction.maps`
    parts:            {name: task} that it is made of, as `Prediction.parts`; `leaves` walks them
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    metrics: ClassVar[Metrics]
    tuned_on: ClassVar[tuple[Split, ...]] = ("val",)
    alternatives: ClassVar[tuple[frozenset[str], ...]] = ()
    by_name: ClassVar[bool] = False
    answers_features: ClassVar[bool] = False
    takes_prompts: ClassVar[bool] = False
    answers_pairs: ClassVar[bool] = False
    answers_measurements: ClassVar[bool] = False
    loss_gets_images: ClassVar[bool] = False
    own_maps: ClassVar[tuple[str, ...]] = ()
    parts: Mapping[str, Task] = MappingProxyType({})

    # The question: settings, heads, targets, loss.

    @classmethod
    @abstractmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The fields of this class for these training cases, with reasons; DatasetError where they cannot be taught."""

    def check_and_fill(self) -> Self:
        """The task with what its settings say together, for `task_from_settings`; PlanError for what cannot be."""
        return self

    @property
    @abstractmethod
    def heads(self) -> Mapping[str, Head]:
        """The outputs that it wants from a network."""

    @property
    @abstractmethod
    def labels(self) -> tuple[Label, ...]:
        """The meaning of the values of a dense result, or of the classes of a vector."""

    @abstractmethod
    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The decisions about training that this kind of problem takes, by "section.name"."""

    def with_labels(self, names: Sequence[str]) -> Self:
        """The same for labels of these names, of a kind that takes prompts; others have labels of their own."""
        raise NotImplementedError(f"{self.name} takes no prompts")

    def point_at(
        self, images: Tensor, targets: Any, generators: Sequence[np.random.Generator], answer: Outputs | None = None
    ) -> tuple[Tensor, Any]:
        """A batch with prompts as further channels of its images, and targets of what they point at, if it takes some.

        answer: to prompts that the images have already, of which each gets another where the answer is most wrong
        """
        return images, targets

    def predict_sampled_prompts(self, ask: Callable[[Prompts], Prediction], case: Case) -> Prediction:
        """The result of a case of which the references point, as scores take it, of a kind that takes prompts."""
        raise NotImplementedError(f"{self.name} takes no prompts")

    def under(self, sampling: str) -> dict[str, Decision]:
        """Decisions that follow from its settings and the sampling of cases (`training.sampling`), by "section.name".

        PlanError where cases cannot be sampled so.
        """
        return {}

    @abstractmethod
    def target(self, case: Case) -> Target:
        """The case's target, on the case's own grid."""

    @abstractmethod
    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """A number to lower, of a batch; spacing: mm per axis of its dense outputs."""

    @property
    @abstractmethod
    def selects_by(self) -> str:
        """The metric of `selection`."""

    @abstractmethod
    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """(batch, ...) numbers from which `selection` makes its metric; of a dense head they add up over its parts."""

    @abstractmethod
    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The metric by which checkpoints are compared, higher is better, from the numbers of all validation cases."""

    @property
    def outside(self) -> int | None:
        """The value of its label maps beyond the image; None where their edge goes on as the image's does."""
        return None

    @property
    def terms(self) -> Mapping[str, Sequence[float]]:
        """{name: first values} of numbers that are learnt with the weights: `loss` gets them among the outputs."""
        return {}

    @property
    def painting(self) -> LabelPainting | None:
        """How its images can be painted from its targets; None where these are no label maps."""
        return None

    @property
    def why_uncut(self) -> str:
        """The reason why no patch may cut structures; empty where any may."""
        return ""

    @property
    def weighs_classes(self) -> bool:
        """Whether a class decides how much its cases count, so that losses by class do not add up to its own."""
        return False

    def natural(self, outputs: Outputs) -> Outputs:
        """The outputs as they are of cases as they come, where training samples them otherwise."""
        return outputs

    def compared_cases(self, cases: Sequence[Case]) -> int | None:
        """The number of training cases that the loss compares with others of a batch, as those with an event.

        None where each case has a loss of its own.
        """
        return None

    # The answer: from outputs of a network to a result. It travels with packages, and works without torch.

    @property
    @abstractmethod
    def merge(self) -> Merge:
        """Places of overlapping windows, and their weights."""

    @property
    @abstractmethod
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """Channels that its head's become when left and right change sides; a target's values are the first.

        None where a mirrored image would show what no patient has: a named side without counterpart.
        """

    @property
    def target_sides(self) -> tuple[int, ...] | None:
        """Values that its targets' become when left and right change sides; none: all stay.

        None as in `channels_when_mirrored`.
        """
        return self.channels_when_mirrored

    @abstractmethod
    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """One output, (batch, channels, ...) a head, for those of several networks or mirrored views.

        shares: the weight of each of them, in sum 1; None where all weigh alike
        """

    @property
    def member_settings(self) -> tuple[str, ...]:
        """Settings that follow from a member's own grid, so that results of members are fused and no outputs averaged.

        Empty where outputs mean the same on every grid.
        """
        return ()

    def fuse(self, predictions: Sequence[Prediction], shares: Shares = None) -> Prediction:
        """One result for those of members with grids of their own, of a kind with `member_settings`."""
        raise NotImplementedError

    def average_members(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The same of models that were trained apart, on the image's grid."""
        return self.average(outputs, shares)

    @property
    def probability_heads(self) -> Collection[str]:
        """The heads of which `average` takes the mean of probabilities; of all others that of outputs."""
        return ()

    @abstractmethod
    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs of one case or slab to probabilities, (channels, ...) or one a label of a vector.

        A task that measures has none and gives the numbers that it decodes, scaled as its training cases.
        """

    @abstractmethod
    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Finished parts of the source grid, in order, to a result."""

    def with_features(self, prediction: Prediction, features: Floats | None) -> Prediction:
        """The result with the pooled features of the network, of a task whose result they are; None: it gives none."""
        return prediction

    def with_image(self, prediction: Prediction, image: Image, *, refined: bool = True) -> Prediction:
        """The result with what only the whole image on its own grid tells; as it is of most kinds.

        refined: whether it is also improved on the image itself
        """
        return prediction

    @property
    def refines(self) -> bool:
        """Whether `with_image` takes time to improve a result on the image itself."""
        return False

    @abstractmethod
    def outputs(self, prediction: Prediction) -> Columns:
        """The columns of `predictions.csv`; several rows where a case has several results, never none."""

    @property
    def channel_labels(self) -> tuple[Label, ...]:
        """The meaning of the channels of its dense head."""
        return self.labels

    @property
    def bytes_per_voxel(self) -> int | None:
        """Memory for each voxel of the image while it decodes; None: that of a label."""
        return None

    @property
    def saliency_targets(self) -> tuple[str, ...]:
        """Targets that `saliency` takes by name: classes, findings, structures, values."""
        return ()

    @property
    def marks(self) -> Mapping[str, tuple[int, ...]]:
        """{target: values by which label maps mark it}, where those are not its label's own."""
        return {}

    @property
    def folds_by_head(self) -> Mapping[str, int]:
        """{head: networks} whose own outputs it takes, beside their mean."""
        return {}

    @property
    def background_outputs(self) -> Mapping[str, Sequence[float]]:
        """{head: outputs of a voxel that is surely background}; empty where answers are no map of all voxels."""
        return {}

    @property
    def uncertainty(self) -> Uncertain:
        """Meaning of its probabilities."""
        return ""

    @property
    def uncertain_quantity(self) -> Callable[[Any], Any] | None:
        """(batch, outputs) to what uncertainty is stated of, where outputs are neither values nor log odds themselves.

        Of arrays and tensors alike: (batch, 1) the number that has a variance, or log odds in the place of outputs.
        """
        return None

    @abstractmethod
    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the scalar that an explanation explains.

        target: one of `saliency_targets`; None for the answer as a whole. UsageError for any other
        """

    # What unseen cases find after training.

    def fit_settings(
        self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin
    ) -> dict[str, Decision]:
        """Settings that decoding finds by these cases, as "task.<field>": post-processing, slopes, baselines.

        A single case decides what it can, or nothing. What is set stays, unless it belongs to the network's weights.
        """
        return {}

    @property
    def answers(self) -> Belief | None:
        """The kind of its answers, whose calibration, thresholds and sets cases find; None: they find nothing."""
        return None

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> UnseenCases:
        """Rows of the network's statements on these cases, and what is true, as `answers` takes them."""
        raise NotImplementedError(f"a {self.name} finds nothing by cases")

    @property
    def has_own_zero(self) -> bool:
        """Whether outputs of several networks have one zero by themselves, so that they can be compared."""
        return True

    def align_zero(
        self, predictions: Sequence[Prediction], theirs: Sequence[Prediction], ours: Sequence[Prediction]
    ) -> list[Prediction]:
        """Predictions of another network of the same plan, as if its outputs had the zero of the model's.

        theirs, ours: of the same cases, by that network and by the model; all before anything was decided
        """
        return list(predictions)

    # The score: from results and references to estimates and pictures.

    @property
    def primaries(self) -> frozenset[str]:
        """The metrics of `summary` that a plan may name as primary, with these settings."""
        return self.metrics.primaries

    @abstractmethod
    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and label: case, patient, label, then the scores."""

    @abstractmethod
    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Estimates with intervals from the scores of cases; the row over all labels first.

        seed: of the resampling of patients
        """

    def further_tables(self, table: Table) -> Mapping[str, Table]:
        """{name: a table beside that of the cases}, made of it."""
        return {}

    @abstractmethod
    def rank(self, table: Table) -> list[str]:
        """Case ids from best to worst."""

    @abstractmethod
    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """Pictures of one case, for the report's best, median and worst."""

    @abstractmethod
    def overview(self, table: Table) -> list[Figure]:
        """Charts of all cases."""

    @abstractmethod
    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """The findings of one prediction, for reports.

        measured: the rows of its label maps in `measurements.csv`, which become findings too
        """

    @property
    def probable_findings(self) -> tuple[str, ...]:
        """Names of those of `results` that have a probability."""
        return ()

    @property
    def valued_findings(self) -> Mapping[str, str]:
        """{name: unit} of those of `results` that have a number as their value; "" where images decide the unit."""
        return {}

    @property
    def grades(self) -> tuple[str, ...]:
        """The classes from the lowest to the highest, where they have an order."""
        return ()

    def guess(self, table: Table) -> BlindGuess | None:
        """A guess without images, of a table of cases; None where nothing can be guessed, as with masks."""
        return None

    def case_values(self, table: Table) -> Sequence[CaseValues]:
        """Values of which the figures of a table of cases are made, by which models are tested.

        Those that are means of columns of the same name need nothing said.
        """
        return paired_tests.column_values(table, self.metrics)

    def own_labels(self, cases: Sequence[Case]) -> tuple[Sequence[Case], Sequence[str]]:
        """The cases with references under the task's own numbers, and sentences on labels that one side lacks.

        DatasetError where references hold what cannot be matched.
        """
        return cases, ()

    @property
    def positives(self) -> tuple[str, ...]:
        """The classes that sensitivity, predictive values and the like are of; empty of a task without classes."""
        return ()
