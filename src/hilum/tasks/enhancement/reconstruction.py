"""Reconstruction: the image of which a scanner measured something, learnt from simulated measurements."""

from __future__ import annotations

from dataclasses import dataclass
from typing import ClassVar, Literal

from hilum.files.storage import structured_text
from hilum.tasks.enhancement.question import EXACT, Enhancement
from hilum.transforms.operators import simulated_scans
from hilum.values import Dataset, Decision, Fingerprint

UNROLLED = "unrolled"
MODL = "arXiv:1712.02862"
# Numbers that are already on one scale are held within so far of 0, where none of them comes.
FARTHEST = 1e3


@dataclass(frozen=True)
class Reconstruction(Enhancement):
    """The image behind a measurement: what is to be added to its plain inverse, beside which the network sees more.

    operator:     "cartesian" (MR) or "parallel" (CT)
    acceleration: of cartesian scans; `centre` the share of columns that are always sampled, `mask` how others lie
    coils:        of cartesian scans
    views:        of parallel scans, over half a turn
    noise:        standard deviation of each measured component, in parts of the 99th percentile of the image
    """

    operator: Literal["cartesian", "parallel"] = "cartesian"
    acceleration: float = 4.0
    centre: float = 0.08
    mask: Literal["random", "equispaced"] = "random"
    coils: int = 1
    views: int = 60
    noise: float = 0.01
    name: ClassVar[str] = "reconstruction"
    by_name: ClassVar[bool] = True
    answers_measurements: ClassVar[bool] = True

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """As of an enhancement, in the unit of the plain inverse; how measurements are made is said by hand.

        Of measurements that were read they say it themselves.
        """
        plain = {one: getattr(cls, one) for one in simulated_scans.ScanSettings.__dataclass_fields__}
        stated = structured_text.parse_json(dataset.derived.get("scan", "{}"))
        return {
            **super().settings_for(dataset, fingerprint),
            "unit": Decision("input", "the network says what is to be added to the plain inverse", MODL),
            **{name: Decision(value, "by default") for name, value in plain.items()},
            **{name: Decision(value, "as the measurements state") for name, value in stated.items()},
        }

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """None: the operator of a mirrored image is another."""
        return None

    @property
    def why_uncut(self) -> str:
        """The reason why a patch holds the whole image."""
        return "each number of a measurement is of the whole image"

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Channels as they were scaled together, no augmentation, and a network that knows the operator."""
        decisions = super().decisions(fingerprint)
        count = max(len(case.channels) for case in fingerprint.cases)
        scaled = {"method": "window", "low": -FARTHEST, "high": FARTHEST, "mean": 0.0, "deviation": 1.0}
        because = "one factor brought what was measured to 1, without which the operator would not hold"
        contradicts = "the operator of a changed image is another"
        none = {f"augmentation.{kind}": Decision([] if kind == EXACT[0] else 0.0, contradicts) for kind in EXACT}
        networks = {
            "cartesian": Decision(UNROLLED, "each of its steps explains the measurement", MODL),
            "parallel": Decision("unet", "it learns from filtered backprojection", "arXiv:1611.03679"),
        }
        return {
            **decisions,
            **none,
            "network.name": networks[self.operator],
            "preprocessing.normalisation": Decision([scaled] * count, because),
        }
