"""A toy package of somebody else: the tip of a bright line. It brings a kind of reference, a format that holds it, a
kind of problem that learns it, and a network with a kind of answer and a loss that none of ours has.

One file; its lines in our indexes are the entry points that `tests/test_promise_reference.py` writes.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, ClassVar

import numpy as np
from torch import nn

from hilum.errors import FormatError
from hilum.evaluation import Metric, Metrics, Seed, Table, intervals
from hilum.files.format_options import Format, FormatEntry, ReadOptions
from hilum.lazy import pandas as pd
from hilum.networks.network_family import Family
from hilum.report import Figure
from hilum.report.figures import charts, slice_figures
from hilum.tasks import Task, properties
from hilum.tasks.shared.averages import Shares
from hilum.tasks.task import Outputs
from hilum.values import (
    Array,
    BoundingBoxes,
    Case,
    CaseReference,
    Cohort,
    Dataset,
    Decision,
    Dense,
    Finding,
    Fingerprint,
    Geometry,
    Head,
    Image,
    Label,
    Measurements,
    Merge,
    Prediction,
    Problem,
    ReferenceChecks,
    ReferenceFacts,
    ReferenceKind,
    ReferenceWords,
    Row,
    Setting,
    Slabs,
    Target,
)
from hilum.values.reference_kind import ReferenceStrata

if TYPE_CHECKING:
    from torch import Tensor

KIND = "tip"
HEAD = "nearness"
UNIT = "pixels"
RADIUS = 2.0  # pixels around the tip that a network is taught

# The format: a line of JSON with the shape and the tip, then the pixels.
MAGIC = b"TIPS1"


def _parts(path: Path) -> tuple[Mapping[str, Any], bytes]:
    magic, header, pixels = path.read_bytes().split(b"\n", 2)
    if magic != MAGIC:
        raise FormatError("does not begin as such a file does", str(path), "Write it again")
    return json.loads(header), pixels


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    header, pixels = _parts(path)
    shape = tuple(header["shape"])
    return {"image": Image(np.frombuffer(pixels, np.uint8).reshape(1, *shape), Geometry.of_pixels(shape))}


def read_tip(path: Path) -> tuple[float, float]:
    """(row, column) of the pixel whose centre is the tip."""
    row, column = _parts(path)[0]["tip"]
    return float(row), float(column)


def write_tip(path: Path, pixels: Array, tip: Sequence[float]) -> None:
    header = json.dumps({"shape": pixels.shape, "tip": [*tip]}).encode()
    path.write_bytes(b"\n".join([MAGIC, header, pixels.astype(np.uint8).tobytes()]))


FORMAT = Format("tips", read, references={KIND: read_tip})
ENTRY = FormatEntry("fingertip:FORMAT", (".tip",), ((0, MAGIC),), references=(KIND,))


# The kind of reference.
def _of_cell(cell: Any) -> tuple[float, float]:
    """Of text such as "4 12", the row and the column."""
    row, column = map(float, str(cell).split())
    return row, column


def _unusable(reference: CaseReference) -> Iterator[Problem]:
    inside = all(0 <= at < size for at, size in zip(reference.value, reference.image.geometry.shape, strict=True))
    if not inside:
        what, remedy = "the tip lies outside its image", "Mark it again, or leave the image out"
        yield Problem("error", what, (reference.case,), "nothing there can be learnt", remedy)


def _half(row: float, size: int) -> str:
    return "upper half" if row < size / 2 else "lower half"


def _strata(cases: Sequence[Case]) -> Mapping[str, Sequence[str]]:
    marked = {case: case.references[KIND][0] for case in cases if KIND in case.references}
    return {case.id: [_half(row, properties.first_image(case).geometry.shape[0])] for case, row in marked.items()}


def _counted(fingerprint: Fingerprint) -> Mapping[str, Any]:
    return {"cases": len(fingerprint.summaries(KIND))}


def _lines(cohort: Cohort) -> Mapping[str, str]:
    marked = cohort.summaries(KIND)
    rows = [row for row, _ in marked.values()]
    return {"tips": f"{len(marked)}, in rows {min(rows):.0f} to {max(rows):.0f}"} if marked else {}


def _charts(cohort: Cohort) -> Iterator[Figure]:
    places = np.array([*cohort.summaries(KIND).values()])
    yield charts.scatter(places[:, 1], places[:, 0], "Where the tips lie", axes=("column", "row"))


def _outlined(tip: Sequence[float]) -> BoundingBoxes:
    """A square around it, edges in voxels: the centre of voxel i lies at i + 0.5."""
    centre = np.asarray(tip) + 0.5
    return BoundingBoxes(np.concatenate([centre - RADIUS, centre + RADIUS])[None], (KIND,))


TIP = ReferenceKind(
    KIND,
    ReferenceFacts(recorded=list, of_cell=_of_cell, counted=_counted),
    ReferenceChecks(_unusable),
    ReferenceStrata(_strata, words="tips of both halves"),
    ReferenceWords("tips", lines=_lines, charts=_charts, outlined=_outlined),
)


# The network, and its kind of answer.
@dataclass(frozen=True)
class Nearness(Dense):
    """A number for every voxel, of which the largest is the point: no family of ours answers so."""

    channels: int = 1

    @property
    def answers(self) -> str:
        return "nearness"


class Spotter(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, 1, *spatial)}; `softmax` over all voxels says where the tip is."""

    def __init__(self, channels: int, spatial_dims: int, dense: Mapping[str, int], width: int = 4) -> None:
        super().__init__()
        assert spatial_dims == 2
        self.body = nn.Sequential(
            nn.Conv2d(channels, width, 3, padding=1), nn.ReLU(), nn.Conv2d(width, width, 5, padding=2), nn.ReLU()
        )
        self.dense = nn.ModuleDict({name: nn.Conv2d(width, count, 1) for name, count in dense.items()})

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        features = self.body(images)
        return {name: layer(features) for name, layer in self.dense.items()}

    def loss(self, outputs: Mapping[str, Tensor], targets: Tensor, heads: Mapping[str, Any]) -> Tensor:
        """Minus the logarithm of the share of the voxels' `softmax` that lies on the target; 0 where there is none."""
        [name] = heads
        share = (outputs[name].float().flatten(1).softmax(dim=1) * targets.flatten(1)).sum(dim=1)
        there = targets.flatten(1).any(dim=1)
        return -(share.clamp_min(1e-6).log() * there).mean()


SPOTTER = Family(Spotter, answers=frozenset({"nearness"}), axes=(2,), otherwise="Choose unet", has_loss=True)


# The kind of problem.
@dataclass(frozen=True)
class Pointing(Task):
    """One point of the image.

    radius: pixels around it that are taught
    """

    radius: Annotated[float, Setting(preregistered="radius", target=True)] = RADIUS

    name: ClassVar[str] = "indicating"
    needs: ClassVar[frozenset[str]] = frozenset({KIND})
    merge: ClassVar[Merge] = "gaussian"
    channels_when_mirrored: ClassVar[tuple[int, ...]] = (0,)
    selects_by: ClassVar[str] = "nearness"
    metrics: ClassVar[Metrics] = Metrics((Metric("tip_distance", better="less", unit=UNIT),))

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        return {"radius": Decision(RADIUS, f"the same for all {len(fingerprint)} training cases")}

    @property
    def heads(self) -> Mapping[str, Head]:
        return {HEAD: Nearness()}

    @property
    def labels(self) -> tuple[Label, ...]:
        return (Label(1, KIND),)

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        return {
            "network.name": Decision("spotter", "it is taught by where the tip is"),
            "training.selection": Decision("nearness", "it rises where the tip is"),
            "evaluation.primary": Decision("tip_distance", "it is in pixels"),
        }

    def target(self, case: Case) -> Target:
        """(*spatial) 1 near the tip, else 0; it follows flips and turns as a mask does."""
        shape = properties.first_image(case).geometry.shape
        away = np.hypot(*(grid - at for grid, at in zip(np.indices(shape), case.references[KIND], strict=True)))
        return Target(self.heads[HEAD], (away <= self.radius).astype(np.uint8), structures=((1,),))

    def loss(self, outputs: Outputs, target: Tensor, spacing: Sequence[float] | None = None) -> Tensor:
        return nn.functional.binary_cross_entropy_with_logits(outputs[HEAD][:, 0].float(), target.float())

    def decode(self, slabs: Slabs, geometry: Geometry) -> Prediction:
        """The voxel of the largest output."""
        largest, place = -np.inf, np.zeros(len(geometry.shape))
        for region, arrays in slabs:
            outputs = np.asarray(arrays[HEAD])[0]
            if outputs.max() > largest:
                where = np.unravel_index(int(outputs.argmax()), outputs.shape)
                largest = float(outputs.max())
                place = np.array([part.start + at for part, at in zip(region, where, strict=True)], dtype=float)
        return Prediction(geometry, values=dict(zip(("row", "column"), place.tolist(), strict=True)))

    def quality(self, outputs: Outputs, target: Tensor) -> Mapping[str, Tensor]:
        """(batch,) mean output near the tip, less that of all."""
        logits, near = outputs[HEAD][:, 0].float().flatten(1), target.flatten(1).float()
        inside = (logits * near).sum(dim=1) / near.sum(dim=1).clamp_min(1)
        return {"nearness": inside - logits.mean(dim=1)}

    def selection(self, collected: Mapping[str, Tensor]) -> float:
        return float(collected["nearness"].mean())

    def average(self, outputs: Sequence[Mapping[str, Array]], shares: Shares = None) -> Mapping[str, Array]:
        return {HEAD: np.average([own[HEAD] for own in outputs], axis=0, weights=shares).astype(np.float32)}

    def probabilities(self, arrays: Mapping[str, Array]) -> Mapping[str, Array]:
        return {HEAD: 1 / (1 + np.exp(-np.asarray(arrays[HEAD], dtype=np.float64)))}

    def outputs(self, prediction: Prediction) -> Mapping[str, Any]:
        row, column = _place(prediction)
        return {"tip_row": row, "tip_column": column}

    def score(self, predictions: Sequence[Prediction], cases: Sequence[Case]) -> Table:
        rows = []
        for prediction, case in zip(predictions, cases, strict=True):
            away = float(np.hypot(*np.subtract(_place(prediction), case.references[KIND])))
            rows.append({"case": case.id, "patient": case.patient, "label": "all", "tip_distance": away})
        return pd.DataFrame(rows)

    def summary(self, table: Table, *, seed: Seed) -> list[Row]:
        return [
            Row(
                "tip_distance",
                "all",
                intervals.bootstrap(table["tip_distance"], table["patient"], seed=seed, unit=UNIT),
            )
        ]

    def rank(self, table: Table) -> list[str]:
        return table.sort_values("tip_distance", kind="stable")["case"].tolist()

    def figures(self, prediction: Prediction, case: Case) -> list[Figure]:
        caption = "tip at row {:.0f}, column {:.0f}".format(*_place(prediction))
        return [slice_figures.contours(properties.first_image(case), None, None, (), title=case.id, caption=caption)]

    def overview(self, table: Table) -> list[Figure]:
        return [charts.histogram_chart({"distance": table["tip_distance"]}, "Distance from the tip", axis=UNIT)]

    def results(self, prediction: Prediction, measured: Measurements = ()) -> list[Finding]:
        return [Finding(KIND, value=_place(prediction), unit=UNIT)]

    def saliency(self, outputs: Outputs, target: str | None = None) -> Tensor:
        return outputs[HEAD].flatten(1).amax(dim=1)


def _place(prediction: Prediction) -> tuple[float, float]:
    assert prediction.values is not None
    return prediction.values["row"], prediction.values["column"]
