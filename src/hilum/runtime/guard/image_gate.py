"""A gate: fitted to reference distances of training cases, it decides which answers are given.

An answer is given where it is sure enough.
"""

from __future__ import annotations

import hashlib
import math
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property
from itertools import compress
from typing import TYPE_CHECKING, Any

import numpy as np
from numpy.typing import NDArray
from safetensors.numpy import save

from hilum import errors
from hilum.evaluation.fairness import shift_tests
from hilum.runtime.guard import case_distances, image_observation
from hilum.runtime.guard.case_distances import Correlated, Floats, KnownDistances, Ranges, Reference
from hilum.runtime.guard.gate_state import CUT, FITTED, LIMITS, NONE, OFF, GateState
from hilum.runtime.guard.image_observation import (
    MODALITY,
    RATIO,
    REGION,
    Composition,
    HeaderFacts,
    Observation,
    Watching,
)
from hilum.runtime.windows.pipeline import BLANK
from hilum.values import Image, Prediction
from hilum.values.covariate_values import CovariateValues

if TYPE_CHECKING:
    from hilum.runtime.part_settings import AnsweringSettings, GateSettings

# {score: what it says}, in the order in which they are computed.
HEADER, COLOUR, INTENSITIES = "header", "colour", "intensities"
TEXTURE, LAYOUT, CONTRAST, SYMMETRY = "texture", "layout", "contrast", "symmetry"
FEATURES, NEIGHBOURS = "features", "neighbours"
HELD_OUT, BY_OTHERS = "held_out", "by_others"
# Of a tail's mean excess, in spreads: headers of a set are often all the same, and another one is not odd for a trifle.
LEAST_EXCESS = {HEADER: 0.25, COLOUR: 0.25}
UNSEEN = "the gate could not judge"
CLOCK = "the minutes were over"
# How an image differs from the training cases; {} is the number of its header that differs most.
SCORES = {
    HEADER: "its {} in",
    COLOUR: "its colour differs from that of",
    INTENSITIES: "its intensities differ from those of",
    TEXTURE: "its texture differs from that of",
    LAYOUT: "it is bright and dark in other places than",
    CONTRAST: "its contrast differs from that of",
    SYMMETRY: "its symmetry differs from that of",
    FEATURES: "the network sees other features in it than in",
    NEIGHBOURS: "the network sees other features in it than in",
}
# Those in which no network has a say, so that training cases tell as well as others how far images lie apart.
OF_NO_NETWORK = tuple(name for name in SCORES if name not in (FEATURES, NEIGHBOURS))
# A number of a header beyond these of a few training cases, in spreads and as a factor, is that of another kind.
LIMIT_SPREADS, LIMIT_FACTOR = 3.0, 2.0


@dataclass(frozen=True, eq=False)
class TrainingLook:
    """What training cases look like, in which no network has a say.

    edges:   (channels, bins - 1) of the histogram of the network's input, the outer bins being open
    spectra: of the square roots of histograms, Vasiliuk et al., arXiv:2212.06506
    texture, layout, contrast, symmetry: of these parts of a `Composition`
    """

    edges: Floats
    spectra: Reference
    texture: Ranges
    layout: Reference
    contrast: Correlated
    symmetry: Ranges

    @classmethod
    def from_cases(cls, edges: Floats, spectra: Sequence[Floats], composed: Sequence[Composition]) -> TrainingLook:
        """Fit at least two cases, of which each has a spectrum by these edges and a composition."""
        return cls(
            edges,
            Reference.from_rows(np.stack(spectra)),
            Ranges.from_rows(np.stack([one.texture for one in composed])),
            Reference.from_rows(np.stack([one.layout for one in composed])),
            Correlated.from_rows(np.stack([one.contrast for one in composed])),
            Ranges.from_rows(np.stack([one.symmetry for one in composed])),
        )

    def distances(self, sample: NDArray[np.float32], composed: Composition) -> dict[str, float]:
        """{score: distance from the training cases}"""
        return {
            INTENSITIES: self.spectra.mahalanobis(intensity_spectrum(sample, self.edges)),
            TEXTURE: self.texture.furthest(composed.texture),
            LAYOUT: self.layout.mahalanobis(composed.layout),
            CONTRAST: self.contrast.mahalanobis(composed.contrast),
            SYMMETRY: self.symmetry.furthest(composed.symmetry),
        }

    @property
    def arrays(self) -> dict[str, NDArray[Any]]:
        """Its arrays, which `from_arrays` reads."""
        named = {INTENSITIES: self.spectra, TEXTURE: self.texture, LAYOUT: self.layout}
        parts = [
            part.arrays(name) for name, part in {**named, CONTRAST: self.contrast, SYMMETRY: self.symmetry}.items()
        ]
        return {"edges": self.edges, **{name: array for part in parts for name, array in part.items()}}

    @classmethod
    def from_arrays(cls, arrays: Mapping[str, Floats]) -> TrainingLook:
        """Read what `arrays` gave; KeyError where one is missing."""
        return cls(
            arrays["edges"],
            Reference.from_arrays(arrays, INTENSITIES),
            Ranges.from_arrays(arrays, TEXTURE),
            Reference.from_arrays(arrays, LAYOUT),
            Correlated.from_arrays(arrays, CONTRAST),
            Ranges.from_arrays(arrays, SYMMETRY),
        )


@dataclass(frozen=True, eq=False)
class Guard:
    """The gate of a model, by which it refuses images that are unlike those that trained it.

    level:    p-value below which it refuses; so many of good images are refused wrongly, at most. 0 refuses none
    exact:    whether the held-out cases chose nothing; else they chose the checkpoint, and the level is approximate
    words:    {fact of the header: {its value: patients who had it}}, where all cases told it
    numbers:  {fact of the header: (middle, spread)} as natural logarithms
    look:     what the training cases look like; None of fewer than five
    features: of pooled features; None for a network without
    held_out: {score: distances} of cases that did not train; where these are few and no network has a say, of training
              cases by others too. Empty where there are few of both: it refuses by limits of the header alone
    trained:  number of training cases that were looked at
    unseen:   number of cases that did not train, by which it judges
    calibrated: (patients, features) what the network saw in one case of each, for a comparison with other cases; no
              rows where that is not known
    by_others: {score: distances} of training cases by others, where no network has a say
    shares:   {score: its part of the level}
    answers:  which answers are sure enough to be given; None: all
    skipped:  number of training cases, and of others, at which it did not look because the minutes of the run were over
    """

    level: float
    exact: bool
    words: Mapping[str, Mapping[str, int]]
    numbers: Mapping[str, tuple[float, float]]
    look: TrainingLook | None
    features: Reference | None
    trained: int
    unseen: int = 0
    held_out: Mapping[str, KnownDistances] = field(default_factory=dict)
    calibrated: NDArray[np.float32] = field(default_factory=lambda: np.empty((0, 0), np.float32))
    by_others: Mapping[str, KnownDistances] = field(default_factory=dict)
    shares: Mapping[str, float] = field(default_factory=dict)
    answers: Answering | None = None
    skipped: tuple[int, int] = (0, 0)

    def __repr__(self) -> str:
        return f"a gate at the level of {self.level:g}, of {self.trained} training cases and {self.unseen} others"

    @property
    def is_calibrated(self) -> bool:
        """Whether distances of cases, each from others, say how far an image may lie; else limits alone refuse."""
        return bool(self.held_out)

    @property
    def state(self) -> GateState:
        """On what it refuses images."""
        if not self.level:
            return GateState(NONE, OFF)
        if not self.trained:
            return GateState(NONE, f"{CLOCK} before it had looked at a training case")
        if not self.is_calibrated:
            few = f"{self._training_cases}, too few or of too few patients to be compared with each other"
            return GateState(LIMITS, f"{few}; {CLOCK}" if any(self.skipped) else few)
        if self.unseen:
            others = self.unseen if not self.skipped[1] else f"{self.unseen} of {self.unseen + self.skipped[1]}"
            cases = f"{self._training_cases}, and {others} that did not train it"
        else:
            cases = f"{self._training_cases}, each compared with the others, {self.why_without_others}"
        return GateState(CUT, f"{cases}; {CLOCK}") if any(self.skipped) else GateState(FITTED, cases)

    @property
    def why_without_others(self) -> str:
        """Reason for which training cases judge: none was left out, or the minutes left too few of these."""
        unlooked = errors.count_phrase(self.skipped[1], "case")
        return f"because it did not look at {unlooked} left out" if self.skipped[1] else "because none was left out"

    @property
    def _training_cases(self) -> str:
        """The training cases that it has looked at, in words; of a gate that was cut short of how many."""
        cases = errors.count_phrase(self.trained + self.skipped[0], "training case")
        return f"{self.trained} of {cases}" if self.skipped[0] else cases

    @property
    def cut_words(self) -> str:
        """End of a sentence on its verdict: the cases that a gate that was cut short has looked at."""
        return f"; {self.state}" if any(self.skipped) else ""

    def judge(self, prediction: Prediction, observation: Observation, sure: float = 1.0) -> Prediction:
        """The prediction with the gate's p-value, and why the model gives no answer where it gives none.

        sure: how sure the answer is, 0 to 1
        """
        distances = self.distances(observation)
        confidence = replace(prediction.confidence, features=observation.features, distances=distances)
        if not self.is_calibrated:
            reason = self.limit_refusal(observation.header)
            return replace(prediction, confidence=confidence, abstained=prediction.abstained or reason)
        p, reason, notes = self.verdict(observation, distances)
        if p >= self.level:
            reason = None if self.answers is None else self.answers.refusal(sure)
        abstained = reason if prediction.abstained is None else prediction.abstained
        return replace(
            prediction, confidence=replace(confidence, gate_p=p), abstained=abstained, notes=(*prediction.notes, *notes)
        )

    def refuse_covariates(self, prediction: Prediction, reasons: Sequence[str]) -> Prediction:
        """The prediction without an answer where covariates are far outside of those of the training cases.

        reasons: why they are; empty where they are not
        """
        if not reasons or not self.level:
            return prediction
        p = 0.0 if self.is_calibrated else None
        return replace(
            prediction,
            confidence=replace(prediction.confidence, gate_p=p),
            abstained=prediction.abstained or reasons[0],
            notes=tuple(note for note in prediction.notes if note != reasons[0]),
        )

    def judged_anew(
        self,
        prediction: Prediction,
        watching: Watching,
        image: Image,
        covariates: CovariateValues | None,
        sure: float = 1.0,
    ) -> Prediction:
        """The prediction of a large volume that was judged by its header, once the network has seen all of it."""
        notes = tuple(note for note in prediction.notes if not note.startswith(UNSEEN))
        bare = replace(prediction, abstained=None, notes=notes)
        return self.judge(bare, watching.observation(image, covariates), sure)

    def of_frames(self, clip: Prediction, sure: Sequence[float]) -> Prediction:
        """The prediction of a clip whose frames were judged one by one: an answer for all of them, or none.

        sure: how sure the answer to each frame is
        It is refused with its oddest frame, by the joint p-value of all; and with its least sure frame, because a blank
        frame in a label map would read as one in which nothing is.
        """
        if not self.is_calibrated:
            return clip
        oddest = min(clip.frames, key=lambda frame: 1.0 if (p := frame.confidence.gate_p) is None else p)
        joint = min(1.0, len(clip.frames) * (oddest.confidence.gate_p or 0.0))
        reason = oddest.abstained if joint < self.level else None
        if joint >= self.level and self.answers is not None:
            least = int(np.argmin(sure))
            refusal = self.answers.refusal(sure[least])
            reason = None if refusal is None else f"frame {least}: {refusal}"
        return replace(clip, confidence=replace(clip.confidence, gate_p=joint), abstained=reason)

    def limit_refusal(self, header: HeaderFacts) -> str | None:
        """Why a header is that of another kind of image, whatever chance says; None where it may be of this kind.

        It is of another modality, or a number is beyond 3 spreads and twice as large or half as large as usual.
        """
        if not self.level:
            return None
        if (unknown := self._unknown_word(header)) is not None and unknown[1]:
            return unknown[0]
        for name, (middle, spread) in self.numbers.items():
            difference = header.numbers.get(name, middle) - middle
            if abs(difference) > max(LIMIT_SPREADS * spread, math.log(LIMIT_FACTOR)):
                times = f"{math.exp(abs(difference)):.3g} times {'larger' if difference > 0 else 'smaller'}"
                return f"its {name} is {times} than in the {errors.count_phrase(self.trained, 'training case')}"
        return None

    def verdict(
        self, observation: Observation, distances: Mapping[str, float] | None = None
    ) -> tuple[float, str | None, list[str]]:
        """The joint p-value, the reason for a refusal, and notes on what could not be looked at.

        distances: of the observation, where they are known
        The p-values of all scores are joined by Bonferroni, which holds however they depend on each other, and however
        the level is shared out, if not by these values: Genovese et al., doi:10.1093/biomet/93.3.509
        """
        word, is_evidence = self._unknown_word(observation.header) or ("", False)
        if is_evidence:
            return 0.0, word, []
        if observation.is_constant:
            return 0.0, BLANK, []
        distances = self.distances(observation) if distances is None else distances
        if not distances:
            return 1.0, None, [f"{UNSEEN} it: its header says nothing"]
        name, joint = self._join_distances(distances, distances)
        what = SCORES[name].format(_furthest(observation.header, self._of_header))
        reason = self._reason(what, name, distances[name], joint) if joint < self.level else None
        few = [f"{UNSEEN} it by one word, because the patients are too few: {word}"] * bool(word)
        return joint, reason, [*few, *self._unseen(distances)]

    def refused_by_header(self, image: Image, covariates: CovariateValues | None = None) -> tuple[float, str] | None:
        """The p-value and the reason where its header is enough to refuse an image, whatever the network sees in it.

        The p-value is joined with all scores as `verdict` joins it: what the others state can only lower it.
        """
        header = image_observation.header_facts(image, covariates)
        if not self.is_calibrated:
            return None if (reason := self.limit_refusal(header)) is None else (0.0, reason)
        word, is_evidence = self._unknown_word(header) or ("", False)
        if is_evidence:
            return 0.0, word
        distances = self.distances(Observation(header))
        if not distances:
            return None
        name, joint = self._join_distances(distances, self.held_out)
        what = SCORES[name].format(_furthest(header, self._of_header))
        return (joint, self._reason(what, name, distances[name], joint)) if joint < self.level else None

    def _join_distances(self, distances: Mapping[str, float], among: Iterable[str]) -> tuple[str, float]:
        """The score that speaks most against an image, and the joint p-value, of these scores among all that count."""
        shares = self._shares(among)
        p_of_distances = self.p_values(distances, shares)
        joined = {name: p / shares[name] for name, p in p_of_distances.items()}
        name = min(joined, key=joined.__getitem__)
        return name, min(1.0, joined[name])

    def _unknown_word(self, header: HeaderFacts) -> tuple[str, bool] | None:
        """A word that no known patient had, and whether patients are enough to refuse for it; None too if no evidence.

        An image of another modality or region of the body is of another kind, whatever chance says: it is refused by
        however few patients.
        Of other facts a word of one patient alone is no evidence, and neither is a fact after it: so an image is
        wrongly refused only where, in the first fact in which any of the n patients or its own has a word alone, only
        its own has one. That is as likely as for each other patient: at most 1 / (n + 1), however many facts there are.
        """
        for name, word in header.words.items():
            words, is_kind = self.words.get(name, {}), name in (MODALITY, REGION)
            if 1 in words.values() and not is_kind:
                break
            if words and word not in words:
                reason = f"its {name} is {word}; of the training cases it was {errors.list_phrase(words)}"
                return reason, is_kind or case_distances.is_enough(sum(words.values()), self.level)
        return None

    def p_values(self, distances: Mapping[str, float], shares: Mapping[str, float] | None = None) -> dict[str, float]:
        """{score: p-value} of its distances, before they are joined; shares: of the level, else of these alone."""
        shares = self._shares(distances) if shares is None else shares
        return {
            name: case_distances.p_value(
                one, self.held_out[name], self.level * shares[name], LEAST_EXCESS.get(name, 0.0)
            )
            for name, one in distances.items()
        }

    def _shares(self, names: Iterable[str]) -> dict[str, float]:
        """{score: its part of the level} of these scores, which share all of it."""
        shares = {name: self.shares[name] for name in names}
        return {name: share / sum(shares.values()) for name, share in shares.items()}

    def distances(self, observation: Observation) -> dict[str, float]:
        """{score: distance from the training cases}, of all that can be computed."""
        found = {}
        colour = {COLOUR: self.numbers[COLOUR]} if COLOUR in self.numbers else {}
        for name, numbers in ((HEADER, self._of_header), (COLOUR, colour)):
            if (distance := header_distance(observation.header, numbers)) is not None:
                found[name] = distance
        if self.look is not None and observation.composed is not None:
            found |= self.look.distances(observation.sample, observation.composed)
        if self.features is not None and observation.features is not None:
            found[FEATURES] = self.features.mahalanobis(observation.features)
            found[NEIGHBOURS] = self.features.neighbour(observation.features)
        return {name: distance for name, distance in found.items() if name in self.held_out or not self.held_out}

    @property
    def _of_header(self) -> Mapping[str, tuple[float, float]]:
        """The numbers that are one score together; colour is a score of its own."""
        return {name: own for name, own in self.numbers.items() if name != COLOUR}

    def _reason(self, what: str, name: str, distance: float, p: float) -> str:
        held_out = self.held_out[name]
        how = "" if case_distances.is_enough(held_out.patients, self.level / len(self.held_out)) else "extrapolated "
        others = f"that of {held_out.words('other case')} at most {held_out.distances[-1]:.3g}"
        figures = f"distance {distance:.3g}, {others}; {how}p {p:.2g}, refused below {self.level:g}{self.cut_words}"
        return f"{what} the training cases ({figures})"

    def _unseen(self, distances: Mapping[str, float]) -> list[str]:
        """A note on scores that this model has and that could not be computed."""
        lacking = [one for one in (INTENSITIES, FEATURES) if one in self.held_out and one not in distances]
        return [f"{UNSEEN} its {' and '.join(lacking)}"] if lacking else []

    @property
    def settings(self) -> GateSettings:
        """Plain values for `model.json`; `sha256` is that of the file with its arrays."""
        return {
            "level": self.level,
            "exact": self.exact,
            "words": {name: dict(known) for name, known in self.words.items()},
            "numbers": {name: list(pair) for name, pair in self.numbers.items()},
            "trained": self.trained,
            "unseen": self.unseen,
            "answers": None if self.answers is None else self.answers.settings,
            "shares": dict(self.shares),
            "skipped": list(self.skipped),
            "sha256": hashlib.sha256(self.content).hexdigest(),
        }

    @cached_property
    def content(self) -> bytes:
        """The arrays as safetensors."""
        arrays: dict[str, NDArray[Any]] = {
            "calibrated": self.calibrated,
            **({} if self.look is None else self.look.arrays),
        }
        if self.features is not None:
            arrays |= self.features.arrays(FEATURES)
        for kind, knowns in ((HELD_OUT, self.held_out), (BY_OTHERS, self.by_others)):
            for name, one_known in knowns.items():
                arrays |= one_known.arrays(f"{kind}.{name}")
        return save({name: np.ascontiguousarray(one) for name, one in arrays.items()})  # it writes memory as it lies

    @classmethod
    def from_record(cls, settings: GateSettings, arrays: Mapping[str, Floats]) -> Guard:
        """Read what `settings` and `content` gave; KeyError, TypeError or ValueError where they are not whole."""
        held_out, by_others = (
            {
                name: KnownDistances.from_arrays(arrays, f"{kind}.{name}")
                for name in SCORES
                if f"{kind}.{name}" in arrays
            }
            for kind in (HELD_OUT, BY_OTHERS)
        )
        return cls(
            level=float(settings["level"]),
            exact=bool(settings["exact"]),
            words=settings["words"],
            numbers={name: (float(middle), float(spread)) for name, (middle, spread) in settings["numbers"].items()},
            look=TrainingLook.from_arrays(arrays) if "edges" in arrays else None,
            features=Reference.from_arrays(arrays, FEATURES) if f"{FEATURES}.mean" in arrays else None,
            trained=int(settings["trained"]),
            unseen=int(settings["unseen"]),
            held_out=held_out,
            calibrated=np.asarray(arrays["calibrated"], dtype=np.float32),
            by_others=by_others,
            shares={name: float(share) for name, share in settings["shares"].items()},
            answers=None if settings["answers"] is None else Answering.from_settings(settings["answers"]),
            skipped=(int(settings["skipped"][0]), int(settings["skipped"][1])),
        )


def header_distance(header: HeaderFacts, numbers: Mapping[str, tuple[float, float]]) -> float | None:
    """The distance of the number that is furthest from its middle, in spreads; None where it states none of them."""
    return max(_spreads(header, numbers).values(), default=None)


def _furthest(header: HeaderFacts, numbers: Mapping[str, tuple[float, float]]) -> str:
    """The number that lies furthest from those of the training cases, beside these: "spacing is 5 mm, about 1 mm"."""
    spreads = _spreads(header, numbers)
    if not spreads:
        return "header differs from that"
    name = max(spreads, key=spreads.__getitem__)
    unit = "" if name.startswith(RATIO) else " mm"
    own, usual = (f"{math.exp(one):.3g}{unit}" for one in (header.numbers[name], numbers[name][0]))
    return f"{name} is {own}, and about {usual}"


def _spreads(header: HeaderFacts, numbers: Mapping[str, tuple[float, float]]) -> dict[str, float]:
    shared = {name: own for name, own in numbers.items() if name in header.numbers}
    return {name: abs(header.numbers[name] - middle) / spread for name, (middle, spread) in shared.items()}


def intensity_spectrum(sample: NDArray[np.float32], edges: Floats) -> Floats:
    """(channels * bins,) square roots of the shares of a sample's voxels in each bin, (channels, bins - 1) edges."""
    rows = []
    for channel, edges_of_channel in zip(sample, edges, strict=True):
        finite = channel[np.isfinite(channel)]
        counts = np.bincount(np.searchsorted(edges_of_channel, finite), minlength=len(edges_of_channel) + 1)
        rows.append(np.sqrt(counts / max(1, len(finite))))
    return np.concatenate(rows)


@dataclass(frozen=True)
class Answering:
    """The answers that a model gives: those that are sure enough.

    error, delta: at most this share of them is wrong, with a confidence of 1 - delta
    least:        how sure they have to be, 0 to 1; infinite where nothing is known to be sure enough
    cases:        from how many that is known
    enough:       where nothing is, from about how many it would be; 0 where more do not help, None where nobody knows
    """

    error: float
    delta: float
    least: float
    cases: int
    enough: int | None = None

    def refusal(self, sure: float) -> str | None:
        """Why an answer that is so sure is not given; None where it is."""
        if sure >= self.least:
            return None
        if math.isinf(self.least):
            cases = errors.count_phrase(self.cases, "case")
            few = f"{cases} do not show when at most {100 * self.error:g} % of answers are wrong"
            return few + self._prospect
        enough = f"at most {100 * self.error:g} % of answers with {self.least:.3f} or more are wrong"
        return f"the answer is not sure enough ({sure:.3f}; {enough})"

    def words(self, *, exact: bool) -> str:
        """A sentence on what the promise rests; exact: whether the cases chose nothing."""
        whom = errors.count_phrase(self.cases, "case") + (
            " that chose nothing" if exact else " that decided other things too"
        )
        if math.isinf(self.least):
            few = f"{whom} are too few to show when so few answers are wrong: the model gives no answer at all"
            return few + self._prospect
        how = "" if exact else "; approximate, no guarantee"
        return f"by {whom}, answers with a sureness of {self.least:.3f} or more are right so often{how}"

    @property
    def _prospect(self) -> str:
        """Whether more cases would make such a model answer."""
        if self.enough is None:
            return ""
        if not self.enough:
            return "; even the surest answers are wrong more often, so that more such cases do not help"
        return f"; if more are like them, about {float(f'{self.enough:.2g}'):,.0f} cases would show it"

    @property
    def settings(self) -> AnsweringSettings:
        """Plain values; a sureness that nothing reaches is None."""
        least = None if math.isinf(self.least) else self.least
        return {"error": self.error, "delta": self.delta, "least": least, "cases": self.cases, "enough": self.enough}

    @classmethod
    def from_settings(cls, settings: AnsweringSettings) -> Answering:
        """Read what `settings` gave."""
        least = settings["least"]
        numbers = float(settings["error"]), float(settings["delta"]), math.inf if least is None else float(least)
        enough = settings["enough"]
        return cls(*numbers, int(settings["cases"]), None if enough is None else int(enough))


def strictest_answering(answerings: Sequence[Answering | None]) -> Answering | None:
    """The answers of the mean of several models: those that are sure enough for each; None where all answer all."""
    return max((one for one in answerings if one is not None), key=lambda answering: answering.least, default=None)


# Training cases that are looked at, and cases without which there is no gate, or nothing is refused.
MOST_TRAINED, FEWEST = 200, 5
# Bins of a histogram, over the range of all but these shares of the intensities.
BINS, TAILS = 32, 1e-3
# In so many parts training cases are judged by the others, where no network has a say.
PARTS = 10


def unfitted_guard(level: float, skipped: tuple[int, int]) -> Guard:
    """The gate of a run whose minutes were over before it had looked at a case: it refuses nothing, and says so."""
    return Guard(level, True, words={}, numbers={}, look=None, features=None, trained=0, skipped=skipped)


def fit_guard(
    trained: Sequence[Observation],
    held_out: Sequence[Observation],
    level: float,
    *,
    exact: bool,
    skipped: tuple[int, int] = (0, 0),
) -> Guard | None:
    """A gate; None without any training case that a network has seen.

    trained:  the model's training cases, or some of them
    held_out: cases that did not train it; where these are too few, training cases judge, each by the others, in what no
              network has a say; of too few training cases the headers alone set limits
    exact, skipped: as in `Guard`
    """
    observed = [one for one in trained if one.is_seen]
    if not observed:
        return None
    headers = [one.header for one in trained]
    bare = Guard(
        level,
        exact,
        words={name: _words(trained, name) for name in sorted({name for header in headers for name in header.words})},
        numbers=_ranges(headers),
        look=None,
        features=None,
        trained=len(observed),
        skipped=skipped,
    )
    if len(observed) < FEWEST:
        return bare
    edges = _edges([one.sample for one in observed])
    spectra = [intensity_spectrum(one.sample, edges) if one.is_seen else None for one in trained]
    rows = [one.features for one in observed if one.features is not None]
    features = Reference.from_rows(np.stack(rows)) if len(rows) == len(observed) else None
    bare = replace(bare, look=_look_of(trained, spectra, edges), features=features)
    bare = replace(bare, by_others=_by_others(bare, trained, spectra))
    judging = _judging_by(bare, held_out, exact)
    return _with_trained(judging if judging.unseen else replace(bare, held_out=bare.by_others), bare.by_others)


def _look_of(cases: Sequence[Observation], spectra: Sequence[Floats | None], edges: Floats) -> TrainingLook | None:
    """The look of those cases that a network has seen; None where these are too few. spectra: of each case, if seen"""
    composed = [one.composed for one in cases if one.composed is not None]
    known = [own for own in spectra if own is not None]
    return TrainingLook.from_cases(edges, known, composed) if len(composed) >= FEWEST else None


def refit(guard: Guard, held_out: Sequence[Observation], *, exact: bool) -> Guard:
    """The gate with other cases that did not train, by which it judges distances; the same where these are too few.

    They may come from another source, so that training cases say with few of them only how distances spread.
    """
    if (after := _judging_by(guard, held_out, exact)) is guard:
        return guard
    after = replace(after, skipped=(guard.skipped[0], 0))
    both = {name: (own, after.held_out[name]) for name, own in guard.by_others.items() if name in after.held_out}
    scaled = {name: own.as_far_as(others) for name, (own, others) in both.items()}
    return _with_trained(after, {name: own for name, own in scaled.items() if own is not None})


def _judging_by(guard: Guard, held_out: Sequence[Observation], exact: bool) -> Guard:
    """The gate that judges distances by these cases; the same where they are too few."""
    bare = replace(guard, held_out={})
    pairs = [(one.patient, distances) for one in held_out if one.is_seen and (distances := bare.distances(one))]
    if len(pairs) < FEWEST:
        return guard
    patients, distances_of_cases = zip(*pairs, strict=True)
    names = [name for name in SCORES if all(name in one for one in distances_of_cases)]
    judged = {
        name: KnownDistances.from_distances([one[name] for one in distances_of_cases], patients) for name in names
    }
    words = {name: own and _with_words(own, held_out, name) for name, own in guard.words.items()}
    return replace(
        guard, words=words, held_out=judged, calibrated=_calibration_features(held_out), exact=exact, unseen=len(pairs)
    )


def _with_words(counts: Mapping[str, int], held_out: Sequence[Observation], name: str) -> dict[str, int]:
    """The values of a fact in training and in other cases; nothing where some of these do not say."""
    theirs = _words(held_out, name)
    return {word: counts.get(word, 0) + theirs.get(word, 0) for word in sorted({*counts, *theirs})} if theirs else {}


def _with_trained(guard: Guard, by_others: Mapping[str, KnownDistances]) -> Guard:
    """The gate with distances of training cases too, where those that did not train are too few for its level."""
    smallest = guard.level / max(1, len(guard.held_out))
    more = {
        name: held_out.join(by_others[name])
        for name, held_out in guard.held_out.items()
        if guard.unseen and name in by_others and not case_distances.is_enough(held_out.patients, smallest)
    }
    all_distances = {**guard.held_out, **more}
    # The fewer patients tell of a score, the less it can show, and the more is extrapolated.
    patients = {name: own.patients for name, own in all_distances.items()}
    return replace(
        guard, held_out=all_distances, shares={name: n / sum(patients.values()) for name, n in patients.items()}
    )


def _by_others(
    guard: Guard, trained: Sequence[Observation], spectra: Sequence[Floats | None]
) -> dict[str, KnownDistances]:
    """{score: distances of training cases, each judged by those of other patients}, where no network has a say.

    spectra: of each case that a network has seen
    These cases tell as well as those that did not train.
    """
    found = {name: list[tuple[float, str]]() for name in OF_NO_NETWORK}
    _, owner = np.unique([one.patient or f"{n}" for n, one in enumerate(trained)], return_inverse=True)
    for part in range(PARTS):
        others = owner % PARTS != part
        judges = _part_of(guard, list(compress(trained, others)), list(compress(spectra, others)))
        if judges is None:
            continue
        for case in compress(trained, owner % PARTS == part):
            distances = judges.distances(case)
            for name in found.keys() & distances.keys():
                found[name].append((distances[name], case.patient))
    return {name: KnownDistances.from_distances(*zip(*rows, strict=True)) for name, rows in found.items() if rows}


def _part_of(guard: Guard, cases: Sequence[Observation], spectra: Sequence[Floats | None]) -> Guard | None:
    """The part of the gate that needs no network, by some of its training cases; None where these are too few."""
    look = None if guard.look is None else _look_of(cases, spectra, guard.look.edges)
    if look is None:
        return None
    return replace(guard, numbers=_ranges([one.header for one in cases]), look=look, features=None, held_out={})


def tail_note(guard: Guard) -> str:
    """A sentence on how far the gate's level can be believed."""
    fewest = min(guard.held_out.values(), key=lambda known: (known.patients, len(known)))
    lead = f"The gate refuses an image with a p-value below {guard.level:g}, by comparison with"
    if not guard.unseen:
        whom = f"{fewest.words('training case')}, {guard.why_without_others}"
        return f"{lead} {whom}; what the network sees in it does not count{guard.cut_words}."
    whom = f"{fewest.words()} that chose nothing" if guard.exact else fewest.words("validation case")
    approximate = "" if guard.exact else "; these chose the checkpoint, so that the level is approximate"
    smallest = guard.level / len(guard.held_out)
    tail = ""
    if not case_distances.is_enough(fewest.patients, smallest):
        needed = f"{math.ceil(1 / smallest - 1):,} patients are enough"
        tail = f"; they are too few for so small a p, which is extrapolated ({needed})"
    return f"{lead} {whom}{tail}{approximate}{guard.cut_words}."


def _calibration_features(held_out: Sequence[Observation]) -> NDArray[np.float32]:
    """(patients, features) of cases that did not train."""
    with_features = [
        (one.patient or str(n), one.features) for n, one in enumerate(held_out) if one.features is not None
    ]
    if not with_features:
        return np.empty((0, 0), np.float32)
    return np.stack(
        [with_features[n][1] for n in shift_tests.one_case_each([patient for patient, _ in with_features])]
    ).astype(np.float32)


def _edges(samples: Sequence[np.ndarray]) -> Floats:
    """(channels, bins - 1) between the bins, equally wide; what lies beyond is in the outer ones."""
    pooled = np.concatenate(samples, axis=1).astype(np.float64)
    low, high = np.nanquantile(pooled, [TAILS, 1 - TAILS], axis=1)
    return np.linspace(low, np.maximum(high, low + np.finfo(np.float32).eps), BINS - 1, axis=1)


def _words(cases: Sequence[Observation], name: str) -> dict[str, int]:
    """{what a fact was: patients}; nothing where some cases did not say."""
    owners = {(one.header.words.get(name, ""), one.patient or f"case {n}") for n, one in enumerate(cases)}
    counts = Counter(word for word, _ in sorted(owners))
    return {} if "" in counts else dict(counts)


def _ranges(headers: Sequence[HeaderFacts]) -> dict[str, tuple[float, float]]:
    """{fact: its middle and its spread}, of what the first header states."""
    return {name: _range(headers, name) for name in headers[0].numbers}


def _range(headers: Sequence[HeaderFacts], name: str) -> tuple[float, float]:
    ranges = Ranges.from_rows(np.array([[header.numbers[name]] for header in headers if name in header.numbers]))
    return float(ranges.middles[0]), float(ranges.spreads[0])
