"""Decisions by the voxels of unseen cases: the calibration of probabilities, and the Dice that they let expect."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any, NamedTuple

import numpy as np

from isocenter.belief import Certainty
from isocenter.errors import counted
from isocenter.evaluation import Calibrator, Unseen, chosen_calibrator, normalised, overlap, shares_of
from isocenter.tasks.segmentation.postprocessing import FEWEST_PATIENTS, MARGIN, surely_rises
from isocenter.tasks.segmentation.targets import Truth
from isocenter.tasks.segmentation.voxel_calibration import VOXEL_METHODS, Believed
from isocenter.tasks.segmentation.voxel_sample import LOOKED_AT, VoxelSample
from isocenter.tasks.shared import Tidying, place_of, tidied
from isocenter.values import Array, Case, Decision, Floats, Label, Prediction

# Of fewer cases only a temperature is fitted.
FEWEST_CASES = 5
# Numbers (voxels times channels) of all cases that are fitted to: what varies between cases outweighs more of them.
MOST_NUMBERS = 300_000
# What the mean relative error of summed probabilities may grow by.
MOST_VOLUME_LOST = 0.02
LEAST_POWER, MOST_POWER = 0.2, 5.0
GUO = "arXiv:1706.04599"


class Found(NamedTuple):
    """Settings of a segmentation that unseen voxels find: fields of its task, None where they are open."""

    certainty: Certainty
    calibrated_map: bool | None
    expected_dice: Mapping[str, float] | None

    @property
    def is_whole(self) -> bool:
        """Whether nothing is left to be found; label maps are compared only where a calibration is found."""
        return self.certainty.calibration is not None and self.expected_dice is not None


@dataclass(frozen=True, eq=False)
class Voxels:
    """Sampled voxels of a case whose truth is known there.

    places:  (n, axes) their indices; outputs: (n, channels) of the network
    truth:   (n,) number of the class, 0 the background; of regions (n, regions) whether it is true
    marked:  (n, structures) whether the prediction marks it
    weights: (n,) voxels that each stands for
    beyond:  (structures,) true voxels where the network did not look, as beyond what an image was cropped to
    """

    patient: str
    places: Array
    outputs: Array
    truth: Array
    marked: Array
    weights: Array
    beyond: Array

    @classmethod
    def of(
        cls,
        made: Prediction,
        reference: tuple[Array, Array | None],
        patient: str,
        structures: Sequence[tuple[int, ...]],
        *,
        exclusive: bool,
    ) -> Voxels | None:
        """None where no sample was drawn, or nothing of it is known.

        reference: label map, and where it is known, None for everywhere
        """
        if made.untuned is None or made.data is None:
            return None
        sample = VoxelSample.of(made.untuned)
        drawn, known = reference
        there = np.ones(len(sample.weights), bool) if known is None else sample.at(known)
        if not there.any():
            return None
        values, labels = sample.at(drawn)[there], sample.at(np.asarray(made.data))[there]
        true, marked = (np.stack([np.isin(one, own) for own in structures], axis=1) for one in (values, labels))
        numbers = (true * np.arange(1, true.shape[1] + 1)).sum(axis=1) if exclusive else true
        beyond = _beyond(drawn if known is None else np.where(known, drawn, 0), made.untuned.get(LOOKED_AT), structures)
        own = (sample.places[there], sample.outputs[there], numbers, marked, sample.weights[there], beyond)
        return cls(patient, *own)

    def mapped_by(self, believed: Believed, structures: Sequence[tuple[int, ...]]) -> Voxels:
        """The same voxels in the label map that these beliefs make."""
        values = believed.marked(self.outputs.T)
        return replace(self, marked=np.stack([np.isin(values, own) for own in structures], axis=1))

    @property
    def true(self) -> Array:
        """(n, structures) truths."""
        return self.truth if self.truth.ndim == 2 else self.truth[:, None] == np.arange(1, self.marked.shape[1] + 1)

    def probabilities(self, believed: Believed) -> Floats:
        """(n, structures)"""
        return np.asarray(believed(self.outputs.T)[-self.marked.shape[1] :].T, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class UnseenVoxels:
    """The voxels of all unseen cases.

    dice, untidied: (cases, structures) of the label maps after and before tidying; NaN where neither side has it
    structures:     the values of each
    tidies:         whether any rule tidies label maps
    """

    cases: Sequence[Voxels]
    dice: Floats
    untidied: Floats
    believed: Believed
    structures: Sequence[tuple[int, ...]]
    tidies: bool

    def tuned(self, found: Found) -> tuple[Found, dict[str, Decision]]:
        """What these voxels find of that which is not set yet."""
        made = dict[str, Decision]()
        if not self.cases:
            return found, made
        certainty, calibrated_map, powers = found
        if certainty.calibration is None:
            calibration, made["task.calibration"] = self.calibration(certainty.calibration_method)
            certainty = replace(certainty, calibration=calibration)
        unseen = self if calibrated_map is False else self.mapped_by(certainty.calibrator)
        if calibrated_map is None:
            calibrated_map, because = self.gains(unseen, certainty.calibrator)
            made["task.calibrated_map"] = Decision(calibrated_map, because)
            if calibrated_map and self.tidies:
                because = "off: label maps of calibrated outputs score more without it than others with it"
                made["task.postprocessing"] = Decision({}, because)
        if powers is None:
            powers, made["task.expected_dice"] = (unseen if calibrated_map else self).expected(certainty.calibrator)
        return Found(certainty, calibrated_map, powers), made

    def mapped_by(self, calibrator: Calibrator) -> UnseenVoxels:
        """The same voxels with the label maps of outputs calibrated so, which nothing tidies.

        Their Dice is that of the untidied maps, and what the sampled voxels say of the difference: no image is
        predicted anew.
        """
        believed = replace(self.believed, calibrator=calibrator, maps=True)
        if not believed.moves_edges:
            return self
        cases = [one.mapped_by(believed, self.structures) for one in self.cases]
        change = [true_dice(now) - true_dice(before) for now, before in zip(cases, self.cases, strict=True)]
        dice = (np.nan_to_num(self.untidied, nan=1.0) + change).clip(0.0, 1.0)
        return replace(self, cases=cases, dice=dice)

    def gains(self, mapped: UnseenVoxels, calibrator: Calibrator) -> tuple[bool, str]:
        """Whether calibrated label maps surely have the higher Dice, and that of no structure is lower, and why."""
        if not replace(self.believed, calibrator=calibrator).moves_edges:
            return False, "a calibration by one factor, or none, changes no label"
        patients = [one.patient for one in self.cases]
        if len(set(patients)) < FEWEST_PATIENTS:
            few = f"{counted(len(set(patients)), 'patient')} are too few to compare label maps"
            return False, f"{few} (at least {FEWEST_PATIENTS} are needed)"
        before, after = (np.nan_to_num(one.dice, nan=1.0) for one in (self, mapped))
        apart = after - before
        words = f"mean Dice of {counted(len(patients), 'unseen case')} {before.mean():.4f} by outputs of the network"
        words += f", {after.mean():.4f} by calibrated ones: "
        if apart.mean() <= MARGIN or not surely_rises(apart.mean(axis=1), patients):
            return False, f"{words}no sure gain"
        if lost := [name for name, own in zip(self.names, apart.T, strict=True) if own.mean() < -MARGIN]:
            return False, f"{words}a gain, at the cost of {', '.join(lost)}"
        return True, f"{words}a gain in 95 % of the draws of patients"

    @property
    def names(self) -> tuple[str, ...]:
        """Those of the structures."""
        return self.believed.names[-self.dice.shape[1] :]

    def calibration(self, method: str) -> tuple[Calibrator, Decision]:
        """The calibration of a method ("auto" chooses), by voxels of which each patient's weigh as much in all."""
        chosen = chosen_calibrator(
            method,
            self._unseen,
            tried=VOXEL_METHODS[self.believed.exclusive] if len(self.cases) >= FEWEST_CASES else ("temperature",),
            admits=lambda tried: self._volume_error(tried) <= self._volume_error(Calibrator()) + MOST_VOLUME_LOST,
        )
        calibrator = replace(chosen.calibrator, cases=len(self.cases))
        errors = [100 * self._volume_error(one) for one in (Calibrator(), calibrator)]
        because = f"{chosen.because}; summed probabilities are {errors[0]:.1f} % off before and {errors[1]:.1f} % after"
        return calibrator, Decision(calibrator.settings, because, GUO)

    def expected(self, calibrator: Calibrator) -> tuple[dict[str, float], Decision]:
        """{structure: power that makes the Dice of calibrated probabilities the true one, on average of patients}."""
        soft = np.array(
            [soft_dice(one, one.probabilities(replace(self.believed, calibrator=calibrator))) for one in self.cases]
        )
        powers, words = dict[str, float](), []
        for name, own, dice in zip(self.names, soft.T, self.dice.T, strict=True):
            there, power = np.isfinite(own) & np.isfinite(dice), 1.0
            means = [self._mean(np.where(there, each, np.nan), 1.0) for each in (dice, own)]
            if min(means) > 0 and max(means) < 1:
                power = float(np.clip(np.log(means[0]) / np.log(means[1]), LEAST_POWER, MOST_POWER))
            powers[name] = round(power, 4)
            words.append(f"{name} {means[0]:.3f}, by calibrated probabilities {means[1]:.3f}")
        because = f"mean Dice of {len(self.cases)} unseen cases: {'; '.join(words)}"
        return powers, Decision(powers, because)

    def _volume_error(self, calibrator: Calibrator) -> float:
        """The relative error of summed probabilities: of each structure the mean, their sizes averaged."""
        errors = np.array(
            [volume_errors(one, one.probabilities(replace(self.believed, calibrator=calibrator))) for one in self.cases]
        )
        return float(np.mean([abs(self._mean(own, 0.0)) for own in errors.T]))

    def _mean(self, values: Floats, instead: float) -> float:
        """Mean of (cases,) values, of which patients weigh alike and NaN is left out; `instead` of none."""
        there = np.isfinite(values)
        shares, people = shares_of(int(there.sum()), [one.patient for one in compress(self.cases, there)])
        return float(shares @ values[there] / people) if people else instead

    @cached_property
    def _unseen(self) -> Unseen:
        names, exclusive = self.believed.names, self.believed.exclusive
        each = max(1000, MOST_NUMBERS // max(1, len(self.cases) * len(names)))
        random = np.random.default_rng(0)
        kept = [random.permutation(len(one.weights))[:each] for one in self.cases]
        outputs, truth, weights = (
            np.concatenate([getattr(one, name)[own] for one, own in zip(self.cases, kept, strict=True)])
            for name in ("outputs", "truth", "weights")
        )
        patients = np.repeat([one.patient for one in self.cases], [len(own) for own in kept])
        logs = normalised(outputs) if exclusive else outputs.astype(np.float64)
        return Unseen(logs, truth, patients, names, "classes" if exclusive else "labels", weights)


def unseen_voxels(
    predictions: Sequence[Prediction],
    cases: Sequence[Case],
    truth: Truth,
    believed: Believed,
    postprocessing: Mapping[str, Tidying],
    labels: Sequence[Label],
) -> UnseenVoxels:
    """The sampled voxels of cases that did not train; of those without a sample none."""
    rules = {label.value: postprocessing[label.name] for label in labels if label.name in postprocessing}
    voxels, dice, untidied = list[Voxels](), [], []
    for made, case in zip(predictions, cases, strict=True):
        drawn, known = truth.of(case)
        own = Voxels.of(made, (drawn, known), case.patient, truth.structures, exclusive=believed.exclusive)
        if own is not None:
            data = np.asarray(made.data)
            mask = tidied(data, rules, made.geometry.voxel_volume or 1.0) if rules else data
            dice.append(dice_of(mask, drawn, known, truth.structures))
            untidied.append(dice_of(data, drawn, known, truth.structures) if rules else dice[-1])
            voxels.append(own)
    return UnseenVoxels(voxels, np.array(dice), np.array(untidied), believed, truth.structures, bool(rules))


def _beyond(drawn: Array, looked_at: Any, structures: Sequence[tuple[int, ...]]) -> Floats:
    """(structures,) voxels of a label map outside of (axes, 2) where the network looked; None: it looked everywhere."""
    if looked_at is None:
        return np.zeros(len(structures))
    inside = drawn[tuple(slice(*ends) for ends in np.asarray(looked_at).tolist())]
    if inside.size == drawn.size:
        return np.zeros(len(structures))
    each = [(place_of(own, drawn), place_of(own, inside)) for own in structures]
    return np.array([float(np.count_nonzero(all_of) - np.count_nonzero(part)) for all_of, part in each])


def dice_of(mask: Array, drawn: Array, known: Array | None, structures: Sequence[tuple[int, ...]]) -> list[float]:
    """(structures,) of a label map, within what is known."""
    mask = mask if known is None else np.where(known, mask, 0)
    return [overlap(place_of(one, mask), place_of(one, drawn)).dice for one in structures]


def true_dice(voxels: Voxels) -> Floats:
    """(structures,) 2 sum(t m) / (sum(t) + sum(m)) by weighted voxels; 1 where neither side has the structure."""
    both = voxels.weights @ (voxels.true * voxels.marked)
    size = voxels.weights @ (voxels.true * 1.0 + voxels.marked) + voxels.beyond
    return np.where(size > 0, 2 * both / np.maximum(size, 1e-9), 1.0)


def soft_dice(voxels: Voxels, probabilities: Floats) -> Floats:
    """(structures,) 2 sum(p m) / (sum(p) + sum(m)) by weighted voxels; NaN of an empty mask."""
    both = voxels.weights @ (probabilities * voxels.marked)
    marked = voxels.weights @ voxels.marked
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(marked > 0, 2 * both / (voxels.weights @ probabilities + marked), np.nan)


def volume_errors(voxels: Voxels, probabilities: Floats) -> Floats:
    """(structures,) relative error of the summed probability; NaN of a structure that is not there."""
    true = voxels.weights @ voxels.true + voxels.beyond
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(true > 0, voxels.weights @ probabilities / true - 1, np.nan)
