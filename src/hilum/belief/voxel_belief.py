"""Answers that are labels of voxels: calibration, the Dice to expect, covering masks, and intervals of volumes."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import compress
from typing import Any

import numpy as np

from hilum import errors
from hilum.belief import covering_results, prediction_sets
from hilum.belief.certainties import Certainty
from hilum.belief.covering_results import COVERS_FROM, MISSED, AddedResults, Belief, UnseenCases
from hilum.belief.dice_decoding import ARGMAX, DICE, RANKSEG, Decoding
from hilum.belief.voxel_calibration import LOOKED_AT, SIZES, VOXEL_METHODS, VoxelCalibration, VoxelSample
from hilum.evaluation import calibration_fit, conformal, intervals, mask_overlap
from hilum.evaluation.calibration_fit import Calibrator, UnseenOutputs
from hilum.values import Array, Decision, Deferred, Floats, Geometry, Prediction
from hilum.values.voxel_images import ReferenceMap

# A gain in mean Dice below this is not worth a rule, which may harm a case unlike those that were looked at.
MARGIN = 0.002
# What masks decoded for Dice may lose at most, by the interval of the patients' mean.
MOST_LOST = 0.001
# Fewer patients say too little about a rule.
FEWEST_PATIENTS = 5
# One-sided bound of the gain, over draws of the patients with replacement.
SURE = 0.95
DRAWS = 2000
# Of fewer cases only a temperature is fitted.
FEWEST_CASES = 5
# Numbers (voxels times channels) of all cases that are fitted to: what varies between cases outweighs more of them.
MOST_NUMBERS = 300_000
# What the mean relative error of summed probabilities may grow by.
MOST_VOLUME_LOST = 0.02
LEAST_POWER, MOST_POWER = 0.2, 5.0
# Outputs of all folds for each voxel, beyond which what each of them says of a volume is not looked at.
MOST_CHANNELS = 64
# The logarithm of the probability of a class that is a part of the background.
NEVER = -1e4
# A column of cases, and its metric.
TIMES_AS_LARGE = "covering_size"
GUO = "arXiv:1706.04599"
# A label map to the tidied one; None where nothing tidies it.
Tidied = Callable[[Array | Deferred, Geometry], Array | None]


@dataclass(frozen=True, eq=False)
class VoxelBelief(Belief):
    """Labels of voxels; of its rows outputs are predictions, truth functions that read label maps.

    truth of rows: of each case a function to its reference map; a structure is looked at in the cases that know it
    head:           of the network
    structures:     the values of each structure
    probable:       what makes probabilities of outputs
    calibrated_map: whether calibrated outputs make the label map; None: nobody has compared
    expected_dice:  {structure: power that makes the true Dice of what probabilities expect}; None: not found yet
    decoding:       what makes label maps, "argmax" or "dice"; None: nobody has compared
    tidied:         a label map to the tidied one, None where nothing tidies it; these predictions may be without
    """

    certainty: Certainty
    head: str
    structures: tuple[tuple[int, ...], ...]
    probable: VoxelCalibration
    calibrated_map: bool | None
    expected_dice: Mapping[str, float] | None
    decoding: Decoding | None
    tidied: Tidied

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the structures."""
        return self.probable.names[-len(self.structures) :]

    @property
    def added_results(self) -> AddedResults | None:
        """A mask of each structure that misses little of it."""
        least = self.certainty.covers_from
        return None if least is None else AddedResults({self.head: {name: least.get(name, 0.0) for name in self.names}})

    def calibrate(self, rows: UnseenCases) -> dict[str, Decision]:
        """A calibration, what makes the label map, and what makes the expected Dice the true one."""
        if None not in (self.certainty.calibration, self.expected_dice, self.decoding):
            return {}
        unseen = self._unseen(rows)
        return unseen.find_settings(self.certainty, self.calibrated_map, self.decoding, self.expected_dice)

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """Thresholds of covering masks, and of intervals of volumes."""
        decisions = dict[str, Decision]()
        if self.certainty.risk is not None and self.certainty.covering is None:
            decisions = covering_results.covering_thresholds(self.certainty, self.missed_shares(rows), exact=exact)
        if self.certainty.conformal is None:
            off, is_known, complete = self._volumes_off(rows, self.probable, self.tidied)
            columns = zip(self.names, off.T, is_known.T, strict=True) if complete else ()
            scores = {name: (own[there], rows.patients[complete][there]) for name, own, there in columns}
            if scores:
                decisions |= prediction_sets.find_conformal_thresholds(
                    self.certainty, "doubt", "label", scores, exact=exact
                )
        return decisions

    def sets_of_folds(self, rows: UnseenCases) -> dict[str, Decision]:
        """The scores of folds for volumes; nothing where they would take much memory, or where no thresholds are."""
        guarantee = self.certainty.conformal
        networks = int(rows.folds.max()) + 1
        if guarantee is None or networks * len(self.probable.names) > MOST_CHANNELS:
            return {}
        off, is_known, complete = self._volumes_off(rows, self.probable.plain)
        folds = rows.folds[complete]
        patients = rows.patients[complete]
        every = set(rows.folds.tolist())
        if not complete or any(set(folds[there].tolist()) != every for there in is_known.T):
            return {}
        columns = zip(self.names, off.T, is_known.T, strict=True)
        scores = {name: (own[there], folds[there], patients[there]) for name, own, there in columns}
        return prediction_sets.add_fold_scores(guarantee, scores, networks)

    def missed_shares(self, rows: UnseenCases) -> dict[str, tuple[Floats, np.ndarray]]:
        """{structure: ((cases, limits) share of it less probable than each of `COVERS_FROM`, patients)}, where it is.

        A structure without any sampled voxel lies far from whatever was marked: it counts as missed, and so do its
        voxels where the network did not look.
        """
        shares: dict[str, list[Floats]] = {name: [] for name in self.names}
        patients: dict[str, list[str]] = {name: [] for name in self.names}
        nothing = np.append(np.ones(len(COVERS_FROM) - 1), 0.0)
        for prediction, truth, patient in zip(rows.outputs, rows.truth, rows.patients.tolist(), strict=True):
            reference_map = truth()
            voxels = self.sampled_voxels(prediction, reference_map, patient)
            chances = None if voxels is None else voxels.probabilities(self.probable)
            for index, (name, values) in enumerate(zip(self.names, self.structures, strict=True)):
                inside = mask_overlap.mask_of_values(values, reference_map.values)
                inside = inside if reference_map.voxels is None else inside & reference_map.voxels
                if not reference_map.knows(index) or not inside.any():
                    continue
                missed_shares = None
                if voxels is not None and chances is not None:
                    missed_shares = share_below_limits(voxels, chances, index, COVERS_FROM)
                shares[name].append(nothing if missed_shares is None else missed_shares)
                patients[name].append(patient)
        limits = len(COVERS_FROM)
        return {name: (np.array(own).reshape(-1, limits), np.array(patients[name])) for name, own in shares.items()}

    def sampled_voxels(self, prediction: Prediction, reference_map: ReferenceMap, patient: str) -> SampledVoxels | None:
        """The sampled voxels of a case; None where there is no sample, or nothing of it is known."""
        return SampledVoxels.from_prediction(
            prediction, reference_map, patient, self.structures, exclusive=self.probable.exclusive
        )

    def _unseen(self, rows: UnseenCases) -> UnseenVoxels:
        """The sampled voxels of all cases, of those without a sample none, and the Dice of their label maps."""
        voxels = list[SampledVoxels]()
        dice = []
        untidied = []
        tidies = False
        for prediction, truth, patient in zip(rows.outputs, rows.truth, rows.patients.tolist(), strict=True):
            reference_map = truth()
            sampled = self.sampled_voxels(prediction, reference_map, patient)
            if sampled is not None:
                data = np.asarray(prediction.data)
                mask = self.tidied(data, prediction.geometry)
                untidied.append(dice_by_structure(data, reference_map, self.structures))
                dice.append(untidied[-1] if mask is None else dice_by_structure(mask, reference_map, self.structures))
                tidies = tidies or mask is not None
                voxels.append(sampled)
        return UnseenVoxels(voxels, np.array(dice), np.array(untidied), self.probable, self.structures, tidies)

    def _volumes_off(
        self, rows: UnseenCases, probable: VoxelCalibration, tidied: Tidied | None = None
    ) -> tuple[Floats, Array, list[int]]:
        """Number of doubtful voxels by which each volume is off, whether it is known, and the places of these cases.

        Both are (cases, structures), of the cases of which every voxel is known.
        """
        off = list[Floats]()
        is_known = list[list[bool]]()
        complete = list[int]()
        for index, (prediction, truth) in enumerate(zip(rows.outputs, rows.truth, strict=True)):
            reference_map = truth()
            stated_sizes = None
            patient = str(rows.patients[index])
            if reference_map.voxels is None:  # known everywhere
                stated_sizes = self.sizes(prediction, reference_map, patient, probable, tidied)
            if stated_sizes is not None:
                sizes = mask_overlap.structure_sizes(self.structures, reference_map.values)
                off.append(conformal.value_scores(stated_sizes[0], sizes, stated_sizes[1]))
                is_known.append([reference_map.knows(one) for one in range(len(sizes))])
                complete.append(index)
        return np.array(off), np.array(is_known, dtype=bool), complete

    def sizes(
        self,
        prediction: Prediction,
        reference_map: ReferenceMap,
        patient: str,
        probable: VoxelCalibration,
        tidied: Tidied | None = None,
    ) -> Floats | None:
        """(2, structures) voxels of each mask, and voxels that are expected to be wrong; None where nothing tells.

        Of a prediction that was made before its task was calibrated, the sampled voxels tell of the second.
        """
        if prediction.untuned is not None and SIZES in prediction.untuned:
            return np.asarray(prediction.untuned[SIZES])
        voxels = self.sampled_voxels(prediction, reference_map, patient)
        if voxels is None:
            return None
        mask = np.asarray(prediction.data)
        changed = None if tidied is None else tidied(mask, prediction.geometry)
        mask = mask if changed is None else changed
        marked = mask_overlap.structure_sizes(self.structures, mask)
        if probable.maps or self.decoding == DICE:  # the map was made before it was known what makes it
            mapped = voxels.mapped_by(probable, self.structures)
            marked = (marked + voxels.weights @ (mapped.marked * 1.0 - voxels.marked)).clip(0.0)
            voxels = mapped
        return np.stack([marked, voxels.weights @ np.abs(voxels.marked - voxels.probabilities(probable))])


@dataclass(frozen=True, eq=False)
class SampledVoxels:
    """Sampled voxels of a case whose truth is known there.

    places:  (n, axes) their indices; outputs: (n, channels) of the network
    truth:   (n,) number of the class, 0 the background; of regions (n, regions) whether it is true
    known:   (structures,) whether the case knows each: what it does not know is a part of its background
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
    known: Array

    @classmethod
    def from_prediction(
        cls,
        prediction: Prediction,
        reference: ReferenceMap,
        patient: str,
        structures: Sequence[tuple[int, ...]],
        *,
        exclusive: bool,
    ) -> SampledVoxels | None:
        """None where there is no sample, or nothing of it is known.

        reference: the reference map
        """
        if prediction.untuned is None or prediction.data is None:
            return None
        sample = VoxelSample.from_record(prediction.untuned)
        reference_labels = reference.values
        mask_known = reference.voxels
        structure_known = [reference.knows(place) for place in range(len(structures))]
        is_known = np.ones(len(sample.weights), bool) if mask_known is None else sample.at(mask_known)
        if not (is_known.any() and any(structure_known)):
            return None
        values = sample.at(reference_labels)[is_known]
        labels = sample.at(np.asarray(prediction.data))[is_known]
        true, marked = (np.stack([np.isin(one, own) for own in structures], axis=1) for one in (values, labels))
        numbers = (true * np.arange(1, true.shape[1] + 1)).sum(axis=1) if exclusive else true
        labels_known = reference_labels if mask_known is None else np.where(mask_known, reference_labels, 0)
        beyond = _beyond(labels_known, prediction.untuned.get(LOOKED_AT), structures)
        fields = (sample.places[is_known], sample.outputs[is_known], numbers, marked, sample.weights[is_known], beyond)
        return cls(patient, *fields, np.array(structure_known))

    def mapped_by(self, probable: VoxelCalibration, structures: Sequence[tuple[int, ...]]) -> SampledVoxels:
        """The same voxels in the label map that these probabilities make."""
        values = probable.sample_labels(self.outputs.T, self.weights)
        return replace(self, marked=np.stack([np.isin(values, own) for own in structures], axis=1))

    @property
    def true(self) -> Array:
        """(n, structures) truths."""
        return self.truth if self.truth.ndim == 2 else self.truth[:, None] == np.arange(1, self.marked.shape[1] + 1)

    def probabilities(self, probable: VoxelCalibration) -> Floats:
        """(n, structures)"""
        return np.asarray(probable(self.outputs.T)[-self.marked.shape[1] :].T, dtype=np.float64)


@dataclass(frozen=True, eq=False)
class UnseenVoxels:
    """The voxels of all unseen cases.

    dice, untidied: (cases, structures) of the label maps after and before tidying; NaN where neither side has it
    structures:     the values of each
    tidies:         whether any rule tidies label maps
    """

    cases: Sequence[SampledVoxels]
    dice: Floats
    untidied: Floats
    probable: VoxelCalibration
    structures: Sequence[tuple[int, ...]]
    tidies: bool

    def find_settings(
        self, certainty: Certainty, maps: bool | None, decoding: Decoding | None, powers: Mapping[str, float] | None
    ) -> dict[str, Decision]:
        """The calibration, what makes the label map, and the powers of expected Dice, where open.

        maps: whether calibrated outputs make the label map. All are what is set already; None where it is open
        """
        decisions = dict[str, Decision]()
        if not self.cases:
            return decisions
        calibrator = certainty.calibration
        if calibrator is None:
            calibrator, decisions["task.calibration"] = self.calibration(certainty.calibration_method)
        probable = replace(self.probable, calibrator=calibrator, maps=False, for_dice=False)
        mapped = self.mapped_by(replace(probable, maps=True))
        if maps is None and decoding != DICE:
            maps, because = self.gains(mapped, calibrator)
            decisions["task.calibrated_map"] = Decision(maps, because)
            decisions |= self._untidied("calibrated outputs") if maps else {}
        chosen = mapped if maps else self
        if decoding != ARGMAX:
            decoded = self.mapped_by(replace(probable, for_dice=True))
            if decoding is None:
                decoding, because = chosen.choose_decoding(decoded)
                decisions["task.decoding"] = Decision(decoding, because, RANKSEG)
                decisions |= self._untidied("masks decoded for Dice") if decoding == DICE else {}
            chosen = decoded if decoding == DICE else chosen
        if powers is None:
            decisions["task.expected_dice"] = chosen.expected_dice_powers(calibrator)
        return decisions

    def _untidied(self, maps: str) -> dict[str, Decision]:
        """No post-processing where other label maps gain without it on those that it tidies."""
        because = f"off: label maps of {maps} score more without it than others with it"
        return {"task.postprocessing": Decision({}, because)} if self.tidies else {}

    def mapped_by(self, probable: VoxelCalibration) -> UnseenVoxels:
        """The same voxels with the label maps that these probabilities make, which nothing tidies.

        Their Dice is that of the untidied maps, and what the sampled voxels say of the difference: no image is
        predicted anew.
        """
        if not (probable.moves_edges or probable.for_dice):
            return self
        cases = [one.mapped_by(probable, self.structures) for one in self.cases]
        change = [true_dice(now) - true_dice(before) for now, before in zip(cases, self.cases, strict=True)]
        dice = (np.nan_to_num(self.untidied, nan=1.0) + change).clip(0.0, 1.0)
        return replace(self, cases=cases, dice=dice)

    @property
    def is_known(self) -> Array:
        """(cases, structures) whether the case knows it."""
        return np.array([one.known for one in self.cases])

    def gains(self, mapped: UnseenVoxels, calibrator: Calibrator) -> tuple[bool, str]:
        """Whether calibrated label maps surely have the higher Dice, and that of no structure is lower, and why."""
        if not replace(self.probable, calibrator=calibrator).moves_edges:
            return False, "a calibration by one factor, or none, changes no label"
        patients = [one.patient for one in self.cases]
        if few := self._too_few:
            return False, few
        before, after = self._known_dice, mapped._known_dice
        apart = after - before
        unseen_cases = errors.count_phrase(len(patients), "unseen case")
        words = f"mean Dice of {unseen_cases} {np.nanmean(before):.4f} by outputs of the network"
        words += f", {np.nanmean(after):.4f} by calibrated ones: "
        if np.nanmean(apart) <= MARGIN or not is_surely_positive(np.nanmean(apart, axis=1), patients):
            return False, f"{words}no sure gain"
        if lost := [name for name, own in zip(self.names, apart.T, strict=True) if _mean_of(own) < -MARGIN]:
            return False, f"{words}a gain, at the cost of {', '.join(lost)}"
        return True, f"{words}a gain in 95 % of the draws of patients"

    def choose_decoding(self, decoded: UnseenVoxels) -> tuple[Decoding, str]:
        """`DICE` where masks decoded so gain, on average and without a loss in the interval of patients, and why."""
        if few := self._too_few:
            return ARGMAX, few
        sizes = np.array([one.weights @ one.true + one.beyond for one in self.cases])
        if absent := list(compress(self.names, np.atleast_1d(~np.where(self.is_known, sizes > 0, False).any(axis=0)))):
            return ARGMAX, f"no unseen case has {errors.list_phrase(absent)}, whose mask nobody could compare"
        before, after = self._known_dice, decoded._known_dice
        patients = [one.patient for one in self.cases]
        gain = intervals.bootstrap(np.nanmean(after - before, axis=1), patients, seed=0, exact=False)
        low, high = (float("nan") if end is None else end for end in (gain.low, gain.high))
        words = f"mean Dice of {errors.count_phrase(len(patients), 'unseen case')} {np.nanmean(before):.4f} by argmax, "
        words += f"{np.nanmean(after):.4f} by masks decoded for Dice ({gain.value:+.4f}, 95 % interval {low:+.4f} to "
        words += f"{high:+.4f})"
        return DICE if gain.value > 0 and low >= -MOST_LOST else ARGMAX, words

    @property
    def _too_few(self) -> str:
        """Why label maps are not compared; empty where they are."""
        patients = len({one.patient for one in self.cases})
        few = f"{errors.count_phrase(patients, 'patient')} {'are' if patients > 1 else 'is'} too few to compare maps"
        return f"{few} (at least {FEWEST_PATIENTS} are needed)" if patients < FEWEST_PATIENTS else ""

    @property
    def _known_dice(self) -> Floats:
        """(cases, structures) Dice, 1 where neither side has the structure, NaN where the case does not know it."""
        return np.where(self.is_known, np.nan_to_num(self.dice, nan=1.0), np.nan)

    @property
    def names(self) -> tuple[str, ...]:
        """Names of the structures."""
        return self.probable.names[-self.dice.shape[1] :]

    def calibration(self, method: str) -> tuple[Calibrator, Decision]:
        """The calibration of a method ("auto" chooses), by voxels of which each patient's weigh as much in all."""
        chosen = calibration_fit.choose_calibrator(
            method,
            self._unseen,
            tried=VOXEL_METHODS[self.probable.exclusive] if len(self.cases) >= FEWEST_CASES else ("temperature",),
            admits=lambda tried: self._volume_error(tried) <= self._volume_error(Calibrator()) + MOST_VOLUME_LOST,
        )
        calibrator = replace(chosen.calibrator, cases=len(self.cases))
        off = [100 * self._volume_error(one) for one in (Calibrator(), calibrator)]
        because = f"{chosen.because}; summed probabilities are {off[0]:.1f} % off before and {off[1]:.1f} % after"
        return calibrator, Decision(calibrator.settings, because, GUO)

    def expected_dice_powers(self, calibrator: Calibrator) -> Decision:
        """{structure: power that makes the Dice of calibrated probabilities the true one, on average of patients}."""
        probable = replace(self.probable, calibrator=calibrator)
        soft = np.array([expected_soft_dice(one, one.probabilities(probable)) for one in self.cases])
        powers = dict[str, float]()
        words = []
        for name, expected, dice in zip(self.names, soft.T, self.dice.T, strict=True):
            is_finite = np.isfinite(expected) & np.isfinite(dice)
            power = 1.0
            means = [self._mean(np.where(is_finite, each, np.nan), 1.0) for each in (dice, expected)]
            if min(means) > 0 and max(means) < 1:
                power = float(np.clip(np.log(means[0]) / np.log(means[1]), LEAST_POWER, MOST_POWER))
            powers[name] = round(power, 4)
            words.append(f"{name} {means[0]:.3f}, by calibrated probabilities {means[1]:.3f}")
        because = f"mean Dice of {len(self.cases)} unseen cases: {'; '.join(words)}"
        return Decision(powers, because)

    def _volume_error(self, calibrator: Calibrator) -> float:
        """The relative error of summed probabilities: of each structure the mean, their sizes averaged."""
        probable = replace(self.probable, calibrator=calibrator)
        structure_errors = np.array([volume_errors(one, one.probabilities(probable)) for one in self.cases])
        return float(np.mean([abs(self._mean(own, 0.0)) for own in structure_errors.T]))

    def _mean(self, values: Floats, instead: float) -> float:
        """Mean of (cases,) values, of which patients weigh alike and NaN is left out; `instead` of none."""
        is_finite = np.isfinite(values)
        owners = [one.patient for one in compress(self.cases, is_finite)]
        shares, people = conformal.patient_shares(len(owners), owners)
        return float(shares @ values[is_finite] / people) if people else instead

    @cached_property
    def _unseen(self) -> UnseenOutputs:
        names = self.probable.names
        exclusive = self.probable.exclusive
        per_case = max(1000, MOST_NUMBERS // max(1, len(self.cases) * len(names)))
        random = np.random.default_rng(0)
        chosen = [random.permutation(len(one.weights))[:per_case] for one in self.cases]
        outputs, truth, weights = (
            np.concatenate([getattr(one, name)[own] for one, own in zip(self.cases, chosen, strict=True)])
            for name in ("outputs", "truth", "weights")
        )
        patients = np.repeat([one.patient for one in self.cases], [len(own) for own in chosen])
        logs = calibration_fit.normalise_logs(outputs) if exclusive else outputs.astype(np.float64)
        is_known = np.repeat(self.is_known, [len(own) for own in chosen], axis=0)
        if exclusive and not is_known.all():
            logs = join_background(logs, is_known)
        elif not is_known.all():
            truth = np.where(is_known, truth, np.nan)
        return UnseenOutputs(logs, truth, patients, names, "classes" if exclusive else "labels", weights)


def join_background(logs: Floats, is_known: Array) -> Floats:
    """(n, 1 + structures) log probabilities of which those of unknown structures are added to the background's.

    is_known: (n, structures); as the loss takes a case that knows some structures only, arXiv:2007.03868
    """
    is_never = np.concatenate([np.zeros((len(logs), 1), bool), ~is_known], axis=1)
    joined = np.where(is_never, NEVER, logs)
    joined[:, 0] = np.logaddexp(logs[:, 0], np.logaddexp.reduce(np.where(is_never, logs, -np.inf), axis=1))
    return joined


def _mean_of(values: Floats) -> float:
    """The mean of the values that are there; 0 of none."""
    finite = values[np.isfinite(values)]
    return float(finite.mean()) if len(finite) else 0.0


def _beyond(labels: Array, looked_at: Any, structures: Sequence[tuple[int, ...]]) -> Floats:
    """(structures,) voxels of a label map outside of (axes, 2) where the network looked; None: it looked everywhere."""
    if looked_at is None:
        return np.zeros(len(structures))
    inside = labels[tuple(slice(low, high) for low, high in np.asarray(looked_at).tolist())]
    if inside.size == labels.size:
        return np.zeros(len(structures))
    pairs = [(mask_overlap.mask_of_values(own, labels), mask_overlap.mask_of_values(own, inside)) for own in structures]
    return np.array([float(np.count_nonzero(all_of) - np.count_nonzero(part)) for all_of, part in pairs])


def dice_by_structure(mask: Array, reference_map: ReferenceMap, structures: Sequence[tuple[int, ...]]) -> list[float]:
    """(structures,) of a label map, within what is known; NaN of a structure that is not."""
    mask = mask if reference_map.voxels is None else np.where(reference_map.voxels, mask, 0)
    maps = (mask, reference_map.values)
    pairs = ([mask_overlap.mask_of_values(one, values) for values in maps] for one in structures)
    dice = [mask_overlap.overlap_of_masks(*pair).dice for pair in pairs]
    return [one if reference_map.knows(place) else float("nan") for place, one in enumerate(dice)]


def true_dice(voxels: SampledVoxels) -> Floats:
    """(structures,) 2 sum(t m) / (sum(t) + sum(m)) by weighted voxels; 1 where neither side has the structure."""
    both = voxels.weights @ (voxels.true * voxels.marked)
    size = voxels.weights @ (voxels.true * 1.0 + voxels.marked) + voxels.beyond
    return np.where(size > 0, 2 * both / np.maximum(size, 1e-9), 1.0)


def expected_soft_dice(voxels: SampledVoxels, probabilities: Floats) -> Floats:
    """(structures,) 2 sum(p m) / (sum(p) + sum(m)) by weighted voxels; NaN of an empty mask."""
    both = voxels.weights @ (probabilities * voxels.marked)
    marked = voxels.weights @ voxels.marked
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where(marked > 0, 2 * both / (voxels.weights @ probabilities + marked), np.nan)


def volume_errors(voxels: SampledVoxels, probabilities: Floats) -> Floats:
    """(structures,) relative error of the summed probability; NaN of a structure that is not there, or not known."""
    true = voxels.weights @ voxels.true + voxels.beyond
    with np.errstate(invalid="ignore", divide="ignore"):
        return np.where((true > 0) & voxels.known, voxels.weights @ probabilities / true - 1, np.nan)


def share_below_limits(voxels: SampledVoxels, chances: Floats, index: int, limits: Any) -> Floats | None:
    """(limits,) share of a structure that is less probable than each of them; None without a voxel of it.

    chances: (n, structures)
    """
    true = np.asarray(voxels.true[:, index], dtype=bool)
    beyond = float(voxels.beyond[index])
    if not true.any() and not beyond:
        return None
    chance = np.where(np.isnan(chances[true, index]), -1.0, chances[true, index])  # what is no number is in no mask
    order = np.argsort(chance, kind="stable")
    sums = np.append(0.0, np.cumsum(np.asarray(voxels.weights, dtype=np.float64)[true][order]))
    # Where the network did not look only a mask of the whole image holds anything.
    below = sums[np.searchsorted(chance[order], limits)] + beyond * (np.asarray(limits) > 0)
    return np.asarray(below / (sums[-1] + beyond))


def covering_mask_columns(
    voxels: SampledVoxels, chances: Floats, least: Mapping[str, float], names: Sequence[str]
) -> dict[str, dict[str, float | None]]:
    """{structure: columns}: the share of it that its covering mask misses, and how many times as large that is.

    names: of the structures, in the order of their columns
    """
    columns: dict[str, dict[str, float | None]] = {}
    for name, limit in least.items():
        index = names.index(name)
        share = share_below_limits(voxels, chances, index, [limit])
        size = float(voxels.weights @ voxels.true[:, index]) + float(voxels.beyond[index])
        covered = float(voxels.weights @ (chances[:, index] >= limit))
        columns[name] = {
            MISSED: None if share is None else float(share[0]),
            TIMES_AS_LARGE: covered / size if size else None,
        }
    return columns


def is_surely_positive(gains: np.ndarray, patients: Sequence[str]) -> bool:
    """Whether the mean over (cases,) lies above 0 in 95 % of the draws of patients, each with all its cases."""
    people, owner = np.unique(patients, return_inverse=True)
    sums = np.bincount(owner, gains)
    counts = np.bincount(owner)
    draws = np.random.default_rng(0).integers(len(people), size=(DRAWS, len(people)))
    return bool(np.quantile(sums[draws].sum(axis=1) / counts[draws].sum(axis=1), 1 - SURE) > 0)
