"""The protocol of a kind of problem. No other room names a kind."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, ClassVar, Protocol

from isocenter.belief import Answers, Rows
from isocenter.evaluation import Metrics
from isocenter.tasks.answers import Decoding, Origin, Outputs, Scoring, Teaching, Traits
from isocenter.values import Case, Dataset, Decision, Fingerprint, Head, Label, Prediction, Target

if TYPE_CHECKING:
    from torch import Tensor


class Task(Protocol):
    """A kind of problem with its settings: a frozen dataclass, whose settings are declared as fields.

    `isocenter.values.setting` declares one, with its type, default and words; `task_from` makes a task of the plan's
    section "task".
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]
    traits: ClassVar[Traits]
    metrics: ClassVar[Metrics]

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The fields of this class for these training cases, with reasons; DatasetError where they cannot be taught."""

    def checked(self) -> Task:
        """The task with what its settings say together, as `task_from` makes it; PlanError for what cannot be."""

    @property
    def heads(self) -> Mapping[str, Head]:
        """The outputs that it wants from a network."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """The meaning of the values of a dense result, or of the classes of a vector."""

    @property
    def teaching(self) -> Teaching:
        """The metric that selects checkpoints, and what else training needs."""

    @property
    def decoding(self) -> Decoding:
        """The steps from outputs to results."""

    @property
    def scoring(self) -> Scoring:
        """The steps from results and references to estimates and pictures."""

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The decisions about training that this kind of problem takes, by "section.name"."""

    def under(self, sampling: str) -> dict[str, Decision]:
        """Decisions that follow from its settings and the drawing of cases (`training.sampling`), by "section.name".

        PlanError where cases cannot be drawn so.
        """

    def target(self, case: Case) -> Target:
        """The case's target, on the case's own grid."""

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """A number to lower, of a batch; spacing: mm per axis of its dense outputs."""

    def fitted(self, predictions: Sequence[Prediction], cases: Sequence[Case], origin: Origin) -> dict[str, Decision]:
        """What decoding finds by itself by these cases, as "task.<field>": post-processing, slopes, baselines.

        A single case decides what it can, or nothing. What is set stays, unless it belongs to the network's weights.
        """

    @property
    def answers(self) -> Answers | None:
        """The kind of its answers, whose calibration, thresholds and sets cases find; None: they find nothing."""

    def rows(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Rows:
        """What the network states of these cases, and what is true, as `answers` takes them."""

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """(batch,) the scalar that an explanation explains.

        target: one of `Decoding.targets`; None for the answer as a whole. UsageError for any other
        """
