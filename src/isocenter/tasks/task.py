"""What a kind of problem answers. Every other room asks here, and nowhere is a kind named twice."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, ClassVar, Literal, Protocol

from isocenter.evaluation import Seed, Table
from isocenter.report import Figure
from isocenter.tasks.shared import Shares
from isocenter.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Image,
    Label,
    Prediction,
    Row,
    Slabs,
    Target,
)

if TYPE_CHECKING:
    from torch import Tensor

Outputs = Mapping[str, "Tensor"]


class Task(Protocol):
    """A kind of problem with its settings: a frozen dataclass whose fields are the plan's section "task".

    What a kind may have beside all this:
    tunes:     the settings that `tuned` finds, each None until then; without it none
    tuned_on:  the part whose predictions `tuned` is shown; without it "val"
    registers: {setting: in words} what, beside the primary metric, is fixed before training, because another value
               afterwards could flatter; without it nothing
    of_a_case: the column of `score` by which a report judges a single case where the primary metric has none
    suffices:  whether references of these kinds teach it something; without it all of its `needs` are needed
    parts:     {name: task} that it is made of, as its `Prediction.parts` are
    sides:     {head: as `mirrored`}, where heads differ in what mirroring makes of them
    terms:     {name: numbers} of the loss that are learnt with the weights, from these on; `loss` finds them as tensors
               among the outputs
    cascades:  True where its result is a map of its labels, which a second network can be shown beside the image
    tried:     {setting: values} that a search may try beside the planned one; without it a search leaves its settings
    uncut:     in words why no patch may cut what it is taught; where it is empty or absent, any may
    bytes_per_voxel: of an image while `decode` works; without it those of a label
    outside:   what its label maps say beyond the image; without it 0
    channel_labels: what the channels of its dense head mean, where those are not its labels
    """

    name: ClassVar[str]
    needs: ClassVar[frozenset[str]]

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The fields of this class for these training cases, with reasons; DatasetError where they cannot be taught."""

    @classmethod
    def of(cls, settings: Mapping[str, Any]) -> Task:
        """From the values of the plan's section, or of a model's record; PlanError for an impossible one."""

    @property
    def metrics(self) -> frozenset[str]:
        """What `summary` states, any of which a plan may name as primary."""

    @property
    def selects_by(self) -> str:
        """The metric of `selection`."""

    @property
    def settings(self) -> dict[str, Any]:
        """What `of` makes an equal task from; plain values that fit into JSON and YAML."""

    @property
    def target_settings(self) -> Mapping[str, Any]:
        """Those of the settings on which `target` depends: prepared targets are kept by them."""

    @property
    def heads(self) -> Mapping[str, Head]:
        """The outputs that it wants from a network."""

    @property
    def labels(self) -> tuple[Label, ...]:
        """What the values of a dense result, or the classes of a vector, mean."""

    @property
    def merge(self) -> Literal["gaussian", "mean", "nnunet"]:
        """How overlapping windows are weighed."""

    @property
    def mirrored(self) -> tuple[int, ...] | None:
        """What each channel of its head becomes when left and right change sides; a target's values are the first.

        None where a mirrored image would show what no patient has: a named side without its counterpart.
        """

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """What this kind of problem says about training, by "section.name"."""

    def under(self, sampling: str) -> dict[str, Decision]:
        """What follows from its settings and from how cases are drawn (`training.sampling`), by "section.name".

        PlanError where cases cannot be drawn so.
        """

    def target(self, case: Case) -> Target:
        """What the network is taught about the case, on the case's own grid."""

    def loss(self, outputs: Outputs, target: Tensor) -> Tensor:
        """A number to lower, of a batch."""

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch, ...) numbers from which `selection` makes its metric; of a dense head they add up over its parts."""

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """The metric by which checkpoints are compared, higher is better, from the numbers of all validation cases."""

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """One output, (batch, channels, ...) a head, for those of several networks or mirrored views. No torch here.

        shares: how much each of them counts, together 1; None where all count alike
        """

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """Outputs of one case or slab to probabilities, (channels, ...) or one a label of a vector. No torch here.

        A task that measures has none: it gives the numbers that it decodes, on the scale of its training cases.
        """

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """Finished parts of the source grid, in order, to a result. No torch here."""

    def tuned(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> tuple[Task, dict[str, Decision]]:
        """This task with what predictions of validation cases decide, and those decisions as "task.<field>".

        Where the kind is `tuned_on` another part, of the cases of that. A single case decides what it can, or nothing.
        """

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case and label: case, patient, label, then what was measured."""

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """Estimates with intervals; the row over all labels first."""

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """How one case looks: for the report's best, median and worst."""

    def overview(self, table: Table) -> list[Figure]:
        """How all cases look together."""

    def rank(self, table: Table) -> list[str]:
        """Case ids from best to worst, for the report."""

    def outputs(self, prediction: Prediction) -> Mapping[str, Any] | Sequence[Mapping[str, Any]]:
        """The columns of `predictions.csv`; several rows where a case has several results, never none."""

    def saliency(self, outputs: Outputs) -> Tensor:
        """(batch,) the scalar that an explanation explains."""

    def results(self, prediction: Prediction) -> list[Finding]:
        """What a structured report states."""


def rows_in(outputs: Mapping[str, Any] | Sequence[Mapping[str, Any]]) -> Sequence[Mapping[str, Any]]:
    """What `Task.outputs` gives, as rows."""
    return [outputs] if isinstance(outputs, Mapping) else outputs


def stated_image(case: Case) -> Image:
    """The first image of a case, for pictures."""
    return next(iter(case.images.values()))
