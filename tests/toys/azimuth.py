"""A toy kind of problem: which way an image grows bright, in degrees on a circle. One file, and its line in the index.

Nothing of it is inherited: it is what somebody has to write who adds a kind, against the protocol alone.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np

from hilum.errors import DatasetError
from hilum.evaluation import Metric, Metrics, Seed, Table, intervals
from hilum.lazy import pandas as pd
from hilum.lazy import torch
from hilum.report import Figure
from hilum.report.figures import charts, slice_figures
from hilum.tasks import Task, properties
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Outputs
from hilum.values import (
    Array,
    Case,
    Dataset,
    Decision,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Label,
    Measurements,
    Merge,
    Prediction,
    Row,
    Setting,
    Slabs,
    Target,
    Vector,
)

if TYPE_CHECKING:
    from torch import Tensor

HEAD = "direction"
UNIT = "degrees"


@dataclass(frozen=True)
class Azimuth(Task):
    """Degrees from the first axis towards the second, said as a point in the plane: 359 lies beside 1.

    angle:  the name of the value
    offset: what is added to every answer
    """

    angle: Annotated[str, Setting(target=True)]
    offset: Annotated[float, Setting(always=True, preregistered="zero of the circle", target=True)] = 0.0

    name: ClassVar[str] = "azimuth"
    needs: ClassVar[frozenset[str]] = frozenset({"value"})
    merge: ClassVar[Merge] = "mean"
    # A mirror changes the sign of the angle, which no exchange of channels does.
    channels_when_mirrored: ClassVar[None] = None
    selects_by: ClassVar[str] = "alignment"
    metrics: ClassVar[Metrics] = Metrics((Metric("angular_error", "Error of the angle", "less", unit=UNIT),))

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        names = list(fingerprint.values())
        if len(names) != 1:
            raise DatasetError(f"{len(names)} values", str(dataset.root), "Give the one that is an angle")
        return {
            "angle": Decision(names[0], f"{len(fingerprint)} training cases have it"),
            "offset": Decision(0.0, "angles count from the first axis"),
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        return {HEAD: Vector(2, holds="numbers")}

    @property
    def labels(self) -> tuple[Label, ...]:
        return (Label(0, self.angle),)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        turned = "a turned image points elsewhere"
        return {
            "network.name": Decision("resnet", "it gives one answer for the whole image"),
            "augmentation.rotation": Decision(0.0, turned),
            "augmentation.flips": Decision([], turned),
            "augmentation.quarter_turns": Decision(False, turned),
            "training.selection": Decision("alignment", "it is what the loss lowers"),
            "evaluation.primary": Decision("angular_error", "it is in degrees"),
        }

    def _true(self, case: Case) -> float:
        return float(np.deg2rad(case.references["value"][self.angle] - self.offset))

    def target(self, case: Case) -> Target:
        """(2,) cosine and sine."""
        angle = self._true(case)
        return Target(self.heads[HEAD], np.array([np.cos(angle), np.sin(angle)], dtype=np.float32))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        """Of the point's place, so that its length is learnt too."""
        return ((outputs[HEAD].float() - target) ** 2).sum(dim=1).mean()

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        [(_, arrays)] = slabs
        across, up = np.asarray(arrays[HEAD], dtype=np.float64).tolist()
        return Prediction(geometry, values={self.angle: float(np.rad2deg(np.arctan2(up, across)) + self.offset) % 360})

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            predicted, true = self._degrees(prediction), case.references["value"][self.angle]
            apart = abs((predicted - true + 180) % 360 - 180)
            own = {"case": case.id, "patient": case.patient, "label": "all"}
            rows.append({**own, "angular_error": apart, "reference": true, "predicted": predicted})
        return pd.DataFrame(rows)

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        caption = f"{self._degrees(prediction):.0f} {UNIT}"
        return [slice_figures.contours(properties.first_image(case), None, None, (), title=case.id, caption=caption)]

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        return {f"degrees_{self.angle}": self._degrees(prediction)}

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        return {"alignment": torch.nn.functional.cosine_similarity(outputs[HEAD].float(), target.float())}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        return float(collected["alignment"].mean())

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        return {HEAD: np.average([one[HEAD] for one in outputs], axis=0, weights=shares).astype(np.float32)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        """There are no probabilities: the point itself."""
        return {HEAD: np.asarray(arrays[HEAD], dtype=np.float64)}

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        return [
            Row(
                "angular_error",
                "all",
                intervals.bootstrap(table["angular_error"], table["patient"], seed=seed, unit=UNIT),
            )
        ]

    def rank(self, table: Table) -> list[str]:
        return table.sort_values("angular_error", kind="stable")["case"].tolist()

    def overview(self, table: Table) -> list[Figure]:
        return [charts.histogram_chart({"error": table["angular_error"]}, "Angular error", axis=UNIT)]

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        return outputs[HEAD].norm(dim=1)

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        return [Finding(self.angle, value=self._degrees(prediction), unit=UNIT)]

    def _degrees(self, prediction: Prediction) -> float:
        assert prediction.values is not None
        return prediction.values[self.angle]
