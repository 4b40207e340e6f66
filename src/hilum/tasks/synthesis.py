"""Synthesis: images that a network makes out of noise, of a class or by a mask, for rare classes of a training set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, Annotated, ClassVar

import numpy as np

from hilum import errors
from hilum.evaluation import image_copies
from hilum.tasks import properties
from hilum.tasks.representation import IMAGE, Representation
from hilum.tasks.shared import left_right, reference_labels
from hilum.transforms.augment import INTENSITY, SPATIAL
from hilum.values import Case, Dataset, Decision, Fingerprint, Head, Setting, SyntheticImage, Target, Vector
from hilum.work_state import log

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

FLOW = "arXiv:2209.03003"
ROOTS = "arXiv:1805.00932"
CLASS = "class"
MASK = "mask"


@dataclass(frozen=True)
class Synthesis(Representation):
    """Images out of noise, of a class, by a mask, or of neither.

    Its answer about an image is what the network sees in it, as of a representation.

    classes:    of which an image may be asked for; empty where masks ask
    structures: {name: value} of the masks by which images are synthesised; None where none do
    """

    classes: Annotated[tuple[str, ...], Setting(target=True)] = ()
    structures: Annotated[Mapping[str, int] | None, Setting(target=True)] = None
    name: ClassVar[str] = "synthesis"
    needs: ClassVar[frozenset[str]] = frozenset({CLASS, MASK})
    alternatives: ClassVar[tuple[frozenset[str], ...]] = (frozenset({CLASS}), frozenset({MASK}), frozenset())

    @classmethod
    def settings_for(cls, dataset: Dataset, fingerprint: Fingerprint) -> dict[str, Decision]:
        """What the training cases show: structures where they have masks, else classes."""
        settings = super().settings_for(dataset, fingerprint)
        voxels = fingerprint.voxels(MASK)
        counts = {name: n for name, n in fingerprint.counts(CLASS).items() if n}
        names = {label.value: label.name for label in dataset.classes.get(MASK, ())}
        structures = {names.get(value, str(value)): value for value in voxels if value}
        counts = {} if structures else counts
        risk = image_copies.copy_risk(min(counts.values(), default=len(fingerprint)))
        if risk:
            log.warning("%s", risk)
        shares = ", ".join(f"{n} are {name}" for name, n in counts.items()) or "none is synthesised by its class"
        because = f"of {errors.count_phrase(len(fingerprint), 'training image')} {shares}"
        return {
            "head": Decision(IMAGE, "an image is synthesised"),
            "channels": settings["channels"],
            "classes": Decision(list(counts), f"{because}; {risk}" if risk else because),
            "structures": Decision(structures or None, f"{len(fingerprint.summaries(MASK))} have a mask"),
        }

    @property
    def heads(self) -> Mapping[str, Head]:
        """One head, which synthesises."""
        return {
            IMAGE: SyntheticImage(
                self.channels, condition_classes=self.classes, condition_labels=tuple(self.structures or ())
            )
        }

    @property
    def why_uncut(self) -> str:
        """The reason why a patch holds the whole image."""
        return "images are synthesised whole"

    def decisions(self, fingerprint: Fingerprint) -> dict[str, Decision]:
        """Images as they are, on one scale that can be undone, and what selects and judges."""
        seen = Decision(0.0, "what training changes in images, synthetic ones would show")
        scaled = "the range of the training images becomes -1 to 1, from which it comes back"
        rare = "a rare class comes oftener than its share, and is not learnt by heart"
        sampling = {"training.sampling": Decision("square_root", rare, ROOTS)} if len(self.classes) > 1 else {}
        return {
            **super().decisions(fingerprint),
            **{f"augmentation.{kind}": seen for kind in (*SPATIAL, *INTENSITY) if kind != "flips"},
            "augmentation.quarter_turns": Decision(False, seen.because),
            "network.name": Decision("diffusion_unet", "it makes images out of noise", FLOW),
            "objectives.terms": Decision(["flow"], "a straight way from noise to image needs few steps", FLOW),
            "preprocessing.normalisation": Decision(_scales(fingerprint), scaled),
            "preprocessing.crop": Decision("none", "an image is synthesised whole"),
            **sampling,
            "training.weight_decay": Decision(0.0, "as flows are trained", FLOW),
            "guard.gate": Decision(False, "it answers nothing about an image"),
        }

    def target(self, case: Case) -> Target:
        """The number of the case's class, or of the structure of each voxel; what is unknown asks for nothing."""
        if self.structures is None:
            known = str(case.references.get(CLASS, ""))
            number = self.classes.index(known) if known in self.classes else len(self.classes)
            return Target(Vector(len(self.classes) + 1), np.asarray(number, dtype=np.int64))
        image = properties.first_image(case)
        mask = case.references.get(MASK)
        numbers = np.zeros(image.geometry.shape, dtype=np.uint8)
        if mask is not None:
            reference_labels.refuse_other_image_grid(MASK, mask, image, case.id)
            values = reference_labels.label_values(mask.data, case.id)
            for number, value in enumerate(self.structures.values(), start=1):
                numbers[values == value] = number
        return Target(self.heads[IMAGE], numbers)

    @property
    def channels_when_mirrored(self) -> tuple[int, ...] | None:
        """Unchanged, unless a class or a structure names a side."""
        sided = left_right.have_sides([*self.classes, *(self.structures or ())])
        return None if sided else tuple(range(self.channels))

    @property
    def target_sides(self) -> tuple[int, ...]:
        """Unchanged, as no class or structure that a mirrored image may show has a side."""
        return tuple(range(len(self.classes) + len(self.structures or ()) + 1))


def _scales(fingerprint: Fingerprint) -> list[dict[str, PlainValue]]:
    """A window a channel: from the lowest to the highest of the training cases, without half a percent of each end."""
    scales: list[dict[str, PlainValue]] = []
    for n in range(max(len(case.channels) for case in fingerprint.cases)):
        facts = [case.intensity[min(n, len(case.intensity) - 1)] for case in fingerprint.cases]
        low, high = min(one["low"] for one in facts), max(one["high"] for one in facts)
        scale = {"low": low, "high": high, "mean": (low + high) / 2, "deviation": max((high - low) / 2, 1e-6)}
        scales.append({"method": "window", **{name: float(f"{value:.6g}") for name, value in scale.items()}})
    return scales
