"""Covering results: masks, boxes and objects that miss no more than a person allows, and rows of what cases find.

Angelopoulos et al., arXiv:2208.02814, and with a confidence arXiv:2110.01052
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Protocol

import numpy as np

from hilum.belief.certainties import USUAL_RISK, Certainty
from hilum.belief.prediction_sets import APPROXIMATE, CRC, EXACT, LTT
from hilum.evaluation import Seed, Table, conformal, intervals
from hilum.evaluation.calibration_fit import UnseenOutputs
from hilum.evaluation.conformal import Conformal
from hilum.files.storage import spool
from hilum.files.storage.spool import Spool
from hilum.values import Array, Decision, Floats, Geometry, Map, Prediction, Region, Row, StatedSettings
from hilum.values.covariate_values import CovariateValues

# Probabilities from which on a voxel may be in a covering mask: never fewer voxels than what is likely, at last all.
COVERS_FROM = np.append(1 / (1 + np.exp(np.arange(0.0, 14.0, 0.125))), 0.0)
OF_MASKS = (
    "masks from these probabilities on miss at most {} % of a structure",
    "nothing less than the whole image is known to do so for",
)
OF_ANSWERS = (" from these scores on miss at most {} % of those of a case", "no score is known to do so for")
# Columns of cases, and their metrics: the share that is missed, and what finds nothing.
MISSED = "covering_missed"
FALSE = "covering_false"
# The map of a prediction that holds covering masks or objects, and all maps that answers add.
COVERING_MAP = "covering"
ADDED_MAPS = (COVERING_MAP,)
# With so many times as many patients as control a risk at least covering results may miss half of it.
CONTROLLING = 2


@dataclass(frozen=True)
class AddedResults:
    """The results that a task adds to a prediction where a person asks for them: those that miss little.

    masks:  {dense head: {structure: probability from which on a voxel is in its mask}}
    result: a prediction to the one with all boxes or objects that miss little; None where it has neither
    """

    masks: Mapping[str, Mapping[str, float]]
    result: Callable[[Prediction], Prediction] | None = None

    def stream(self, geometry: Geometry) -> CoveringMasks | None:
        """A receiver of the probabilities of a case's voxels, whose `maps` are the masks; None without masks."""
        return CoveringMasks(self.masks, geometry) if self.masks else None

    def complete(self, prediction: Prediction, masks: CoveringMasks | None) -> Prediction:
        """The prediction with the masks that were made while its probabilities passed by, its boxes and its objects."""
        if masks is not None:
            prediction = replace(prediction, maps={**prediction.maps, **masks.maps})
        return prediction if self.result is None else self.result(prediction)


class CoveringMasks:
    """Masks that miss little of each structure, made while the probabilities of voxels pass by.

    A structure of which no threshold is known has a mask of the whole image.
    """

    def __init__(self, masks: Mapping[str, Mapping[str, float]], geometry: Geometry) -> None:
        [(self._head, self._least)] = masks.items()
        self._spools = [Spool(geometry.shape, np.dtype(np.uint8), fill=not one) for one in self._least.values()]

    def __call__(self, region: Region, arrays: Mapping[str, Array]) -> None:
        if self._head in arrays:
            structures = arrays[self._head][-len(self._spools) :]  # a background comes first
            for mask_spool, chances, least in zip(self._spools, structures, self._least.values(), strict=True):
                mask_spool[region] = (chances >= least).astype(np.uint8)

    @property
    def maps(self) -> dict[str, Map]:
        """{"covering": 1 within the mask}, of several structures one after the other."""
        if len(self._spools) == 1:
            return {COVERING_MAP: Map(self._spools[0].data)}
        return {COVERING_MAP: Map(spool.stack_spools(self._spools, np.dtype(np.uint8)), names=tuple(self._least))}


def risk_decisions(
    because: str = "a covering mask may miss a tenth of its structure on average",
) -> dict[str, Decision]:
    """The settings of a task that states masks or boxes that miss little, before any case has found something."""
    return {
        "risk": Decision(USUAL_RISK, because, CRC),
        "risk_delta": Decision(None, "it holds on average over calibration sets: no confidence was asked for"),
        "covering": Decision(None, "they are found after training, on cases that did not train"),
    }


def fewest_for_risk(settings: StatedSettings, preregistered: Collection[str]) -> int:
    """The patients who should find thresholds of a risk that a person preregistered; 0 without one, and where they are.

    settings:   of a task, or of a part of one
    preregistered: those of them that a person chose
    """
    risk = settings.get("risk")
    delta = settings.get("risk_delta")
    if risk is None or settings.get("covering") is not None or not {"risk", "risk_delta"} & set(preregistered):
        return 0
    return CONTROLLING * conformal.fewest_for_control(risk, delta)


def covering_thresholds(
    certainty: Certainty, missed: Mapping[str, tuple[Floats, np.ndarray]], *, exact: bool, answers: str = ""
) -> dict[str, Decision]:
    """Find a threshold for each structure or class of which no more is missed than `risk` allows.

    missed:  {structure: ((cases, limits) share of it that is less probable than each of `COVERS_FROM`, patients)}
    answers: what has scores, as boxes have; empty for masks
    """
    risk = certainty.risk
    delta = certainty.risk_delta
    assert risk is not None  # noqa: S101 - nobody asks for masks without it
    limits = dict[str, float]()
    counts = dict[str, int]()
    for name, (losses, people) in missed.items():
        counts[name] = len(np.unique(people))
        index = -1
        if delta is None and counts[name]:
            index = conformal.setting_controlled_on_average(losses, risk, people)
        elif delta is not None and counts[name]:
            index = conformal.setting_controlled_with_confidence(losses, risk, delta, people)
        limits[name] = math.inf if index in (-1, len(COVERS_FROM) - 1) else 1 - float(COVERS_FROM[index])
    method = "crc" if delta is None else "ltt"
    guarantee = Conformal(method, 1 - risk, "label", counts, limits, exact)
    how = "on average" if delta is None else f"with a confidence of {100 * (1 - delta):g} %"
    misses, unknown = OF_ANSWERS if answers else OF_MASKS
    because = f"{answers}{misses.format(f'{100 * risk:g}')} {how} in new patients like "
    because += f"those whose cases set them ({', '.join(f'{name} {count}' for name, count in counts.items())})"
    because += EXACT if exact else APPROXIMATE
    if endless := [name for name, limit in limits.items() if math.isinf(limit)]:
        because += f"; {unknown} {', '.join(endless)}"
    return {"task.covering": Decision(guarantee.settings, because, CRC if delta is None else LTT)}


def missed_shares(best: Sequence[Floats], patients: Sequence[str]) -> tuple[Floats, np.ndarray]:
    """(cases, limits) share of what is there that only answers below each of `COVERS_FROM` find, and patients.

    best: of each case, for all that is there, the highest score that finds it, -1 where none does
    Of cases that have any; what nothing finds is missed at every limit.
    """
    rows = [(own[:, None] < COVERS_FROM).mean(axis=0) for own in best if len(own)]
    people = [who for own, who in zip(best, patients, strict=True) if len(own)]
    return np.reshape(rows, (-1, len(COVERS_FROM))), np.array(people)


def covering_rows(table: Table, classes: Sequence[str], unit: str, *, seed: Seed) -> Iterator[Row]:
    """Rows on how much covering boxes or objects miss, and how many find nothing, over all classes and for each."""
    for metric, counted_in in ((MISSED, ""), (FALSE, unit)):
        for label in ("all", *classes) if metric in table else ():
            rows = table if label == "all" else table[table["label"] == label]
            if metric == FALSE:  # a case has those of all its classes
                rows = rows[["case", "patient", FALSE]].groupby(["case", "patient"]).sum(min_count=1).reset_index()
            values = rows[metric].to_numpy(float)
            patients = rows["patient"].to_numpy(str)
            cases = rows["case"][np.isfinite(values)].nunique()
            yield Row(
                metric, label, replace(intervals.bootstrap(values, patients, seed=seed, unit=counted_in), n=cases)
            )


@dataclass(frozen=True, eq=False)
class UnseenCases:
    """Cases as their task gives them: what a network states of them, and what is true.

    outputs:    (cases, ...) before calibration, as the kind of answer has them
    truth:      (cases, ...) what is true of them
    patients:   (cases,) whose they are
    covariates: of each case
    folds:      (cases,) the number of the fold that has not seen the case; empty where one model stated all
    """

    outputs: Any
    truth: Any
    patients: np.ndarray
    covariates: Sequence[CovariateValues] = ()
    folds: np.ndarray = field(default_factory=lambda: np.zeros(0, int))

    def __len__(self) -> int:
        return len(self.patients)

    def of_folds(self, folds: Sequence[int]) -> UnseenCases:
        """The same of outputs by these folds."""
        return replace(self, folds=np.asarray(folds, dtype=int))


class Belief(Protocol):
    """The kind of a task's answers, with what was found of them so far; each method returns what is found anew."""

    @property
    def added_results(self) -> AddedResults | None:
        """The results that a prediction gets where a person asks for them; None where there are none."""
        return None

    @property
    def by_covariates(self) -> Callable[[Prediction, CovariateValues], Prediction] | None:
        """A result and covariates to the result with the patient's own sets and thresholds; None without such."""
        return None

    @property
    def takes_temperature(self) -> bool:
        """Whether a temperature may be fitted to cases of several sites, which `outputs` states."""
        return False

    def outputs(self, rows: UnseenCases) -> UnseenOutputs | None:
        """These cases as a calibration is fitted to them; None of answers that take no temperature."""
        return None

    def calibrate(self, rows: UnseenCases) -> dict[str, Decision]:
        """The calibration and the thresholds of calls that these cases find, of those that are open."""
        return {}

    def sets(self, rows: UnseenCases, *, exact: bool) -> dict[str, Decision]:
        """Thresholds of sets, intervals or covering results; exact: these cases have decided nothing else."""

    def sets_of_folds(self, rows: UnseenCases) -> dict[str, Decision]:
        """The scores of each fold, by which sets and intervals of the mean of folds go; after `sets`."""
        return {}
