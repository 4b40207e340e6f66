"""Representation: what a network sees in an image, learnt without references."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, ClassVar, Literal, cast

import numpy as np

from hilum.errors import DatasetError, UsageError
from hilum.evaluation import Metric, Metrics, Seed, Table, feature_rank
from hilum.evaluation.case_tables import FEATURE
from hilum.lazy import pandas as pd
from hilum.report import Figure
from hilum.report.figures import charts, slice_figures
from hilum.tasks import properties
from hilum.tasks.shared import averages
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Outputs, Task
from hilum.values import (
    Array,
    Case,
    CaseFacts,
    Dataset,
    Decision,
    Dense,
    Estimate,
    Finding,
    Fingerprint,
    Floats,
    Geometry,
    Head,
    Label,
    Measurements,
    Merge,
    Prediction,
    Row,
    Slabs,
    Target,
    Vector,
)
from hilum.values.table_cells import TableRow

if TYPE_CHECKING:
    from torch import Tensor


# The answers of a representation: outputs of a network, and its features as a result.
#
# A copy of this part travels with a packaged model.


def named_features(features: Floats) -> Iterator[tuple[str, float]]:
    """(name, value) of each feature: e0, e1, ..."""
    return ((f"e{n}", float(value)) for n, value in enumerate(features))


class RepresentationAnswering(Task):
    """Results of a representation; the fields are those of `Representation`."""

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        """The mean of the outputs of mirrored views."""
        names = outputs[0].keys()
        return {
            name: averages.mean_output([np.asarray(one[name], np.float32) for one in outputs], shares) for name in names
        }

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """No probabilities: the outputs as they are."""
        return {name: np.asarray(arrays[name], dtype=np.float32) for name in self.heads if name in arrays}

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """A result that is still empty: `with_features` adds what the network saw in all windows."""
        for _ in slabs:
            pass
        return Prediction(geometry)

    def with_features(self, prediction: Prediction, features: Floats | None) -> Prediction:
        """The result with the pooled features as its values, as `embed` calls them."""
        return prediction if features is None else replace(prediction, values=dict(named_features(features)))

    def outputs(self, prediction: Prediction) -> TableRow:
        """A column a feature."""
        return dict(prediction.values or {})

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        """None: features are no findings."""
        return []


RANK = "rank"
LOSS = "minus_loss"
METRICS = Metrics(
    (
        Metric(RANK, "Effective rank of the features"),
        Metric(LOSS, "Minus the loss of the objective", may_judge=False),
    )
)
NO_INTERVAL = "none: patients sampled twice would lower a rank"


def features_in_table(table: Table) -> Floats:
    """(cases, features) of a table of cases."""
    names = [name for name in table if str(name).startswith(FEATURE)]
    return table[names].to_numpy(dtype=np.float64)


class RepresentationScoring(RepresentationAnswering):
    """Scores and pictures of a representation; the fields are those of `Representation`."""

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        """One row a case, with its features: nothing says whether they are right."""
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            features = {f"{FEATURE}{name}": value for name, value in (prediction.values or {}).items()}
            rows.append({"case": case.id, "patient": case.patient, "label": "all", **features})
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        """The effective rank of the features of all cases."""
        features = features_in_table(table)
        people = len(set(table["patient"]))
        estimate = Estimate(feature_rank.effective_rank(features), n=len(features), patients=people, method=NO_INTERVAL)
        return [Row(RANK, "all", estimate)]

    def rank(self, table: Table) -> list[str]:
        """Case ids from the most usual features to the oddest: by the distance from the mean."""
        features = features_in_table(table)
        distances = np.linalg.norm(features - features.mean(axis=0), axis=1)
        return [str(table["case"].iloc[place]) for place in np.argsort(distances, kind="stable")]

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        """The image."""
        caption = f"{len(prediction.values or {})} features"
        return [slice_figures.contours(properties.first_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        """The cases along the two directions in which their features differ most."""
        features = features_in_table(table)
        apart = features - features.mean(axis=0)
        if min(features.shape) < 2:
            return []
        across, up = (apart @ np.linalg.svd(apart, full_matrices=False)[2][:2].T).T
        axes = ("first principal component", "second principal component")
        return [charts.scatter(across, up, "Features of the cases", axes=axes)]


# The two heads: the image itself at every voxel, or so many numbers for the whole image (arXiv:2002.05709).
IMAGE = "image"
EMBEDDING = "embedding"
NUMBERS = 128
RANKME = "arXiv:2210.02885"
WOLF = "arXiv:2412.17041"


@dataclass(frozen=True)
class Representation(RepresentationScoring):
    """The pooled features of a network for an image, taught by objectives that need no reference.

    head:     "image": a number a channel for every voxel; "embedding": 128 numbers for the image. Training needs it,
              and the result does not depend on it
    channels: of a voxel
    """

    head: Literal["image", "embedding"]
    channels: int = 1

    name: ClassVar[str] = "representation"
    needs: ClassVar[frozenset[str]] = frozenset()
    by_name: ClassVar[bool] = True
    answers_features: ClassVar[bool] = True
    selects_by: ClassVar[str] = LOSS
    metrics: ClassVar[Metrics] = METRICS

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The head that suits the images: volumes get what masks would get, pictures and clips what classes would."""
        if not fingerprint.cases:
            raise DatasetError("there is no image to learn from", str(dataset.root or dataset.name), "Give images")
        volumes = sum(is_volume(case) for case in fingerprint.cases)
        head = IMAGE if 2 * volumes > len(fingerprint) else EMBEDDING
        kind = "volumes" if head == IMAGE else "pictures, series or clips"
        because = f"most of {len(fingerprint)} images are {kind}: the network is that of a plan for "
        return {
            "head": Decision(head, because + ("masks" if head == IMAGE else "classes")),
            "channels": Decision(
                max(len(case.channels) for case in fingerprint.cases), "the images have this number of channels"
            ),
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        """One head, as `head` says."""
        return {IMAGE: Dense(self.channels)} if self.head == IMAGE else {EMBEDDING: Vector(NUMBERS)}

    @property
    def labels(self) -> tuple[Label, ...]:
        """None: no value of a result is a class."""
        return ()

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """The network, the objective that teaches it, and what selects and judges."""
        unet = Decision("unet", "it gives an output for every voxel", "arXiv:1505.04597")
        resnet = Decision("resnet", "it gives numbers for the whole image", "arXiv:1512.03385")
        masked = Decision(["masked"], "the network gives an output for every voxel, so it can restore an image", WOLF)
        contrast = Decision(["contrast"], "the network gives numbers for the whole image, so views are compared", WOLF)
        is_dense = self.head == IMAGE
        return {
            "network.name": unet if is_dense else resnet,
            "objectives.terms": masked if is_dense else contrast,
            "training.selection": Decision(LOSS, "nothing else is known of images without references"),
            "evaluation.primary": Decision(RANK, "features that use many directions serve later tasks best", RANKME),
        }

    def target(self, case: Case) -> Target:
        """Nothing: a single zero, whatever is known of the case."""
        return Target(Vector(1), np.zeros((), dtype=np.int64))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """UsageError: it is the objectives that have losses."""
        raise UsageError("has no loss of its own", self.name, "Name objectives that need no reference")

    def quality(self, outputs: Outputs, target: Any) -> Mapping[str, Tensor]:
        """Nothing: the losses of objectives are measured in its place."""
        return {}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        """Minus the mean loss of the objectives over the validation images."""
        return float(collected[LOSS].double().mean())

    @property
    def merge(self) -> Merge:
        """Windows count alike."""
        return "mean"

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """No number has a side."""
        return tuple(range(self.channels if self.head == IMAGE else NUMBERS))

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        """The length of the outputs."""
        if target is not None:
            raise UsageError(f"there is no {target!r} to explain", self.name, "Leave the target out")
        return cast("Tensor", next(iter(outputs.values())).flatten(1).norm(dim=1))


def is_volume(case: CaseFacts) -> bool:
    """Whether an image has three axes and no time."""
    return case.frames is None and sum(size > 1 for size in case.shape) > 2
