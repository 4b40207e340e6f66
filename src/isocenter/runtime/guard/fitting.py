"""A gate from what a model saw of its training cases, and of cases that did not train it."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from dataclasses import replace
from itertools import compress
from typing import Any

import numpy as np
from numpy.typing import NDArray

from isocenter.evaluation import one_of_each
from isocenter.runtime.guard.distances import Correlated, Floats, Known, Ranges, Reference, is_enough
from isocenter.runtime.guard.guard import CONTRAST, LAYOUT, OF_NO_NETWORK, SCORES, SYMMETRY, TEXTURE, Guard, spectrum
from isocenter.runtime.guard.observation import Header, Observation

# Training cases that are looked at, and cases without which there is no gate, or nothing is refused.
MOST_TRAINED, FEWEST = 200, 5
# Bins of a histogram, over the range of all but these shares of the intensities.
BINS, TAILS = 32, 1e-3
# In so many parts training cases are judged by the others, where no network has a say.
PARTS = 10


def fitted_guard(
    trained: Sequence[Observation], held_out: Sequence[Observation], level: float, *, exact: bool
) -> Guard | None:
    """A gate; None where there are too few training cases for one.

    trained:  the model's training cases, or some of them
    held_out: cases that did not train it; where these are too few it refuses nothing until others calibrate it
    exact:    as in `Guard`
    """
    observed = [one for one in trained if one.is_seen]
    if len(observed) < FEWEST:
        return None
    edges = _edges([one.sample for one in observed])
    rows = [one.features for one in observed if one.features is not None]
    headers = [one.header for one in trained]
    bare = Guard(
        level,
        exact,
        words={name: _words(trained, name) for name in sorted({name for header in headers for name in header.words})},
        numbers=_ranges(headers),
        edges=edges,
        spectra=Reference.of(np.stack([spectrum(one.sample, edges) for one in observed])),
        features=Reference.of(np.stack(rows)) if len(rows) == len(observed) else None,
        trained=len(observed),
        **_composed(observed),
    )
    bare = replace(bare, by_others=_by_others(bare, trained))
    return _with_trained(_judging_by(bare, held_out, exact), bare.by_others)


def refitted(guard: Guard, held_out: Sequence[Observation], *, exact: bool) -> Guard:
    """The gate with other cases that did not train, by which it judges distances; the same where these are too few.

    They may come from another source, so that training cases say with few of them only how distances spread.
    """
    if (after := _judging_by(guard, held_out, exact)) is guard:
        return guard
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
    judged = {name: Known.of([one[name] for one in distances_of_cases], patients) for name in names}
    words = {name: own and _with_words(own, held_out, name) for name, own in guard.words.items()}
    return replace(guard, words=words, held_out=judged, calibrated=_calibrated(held_out), exact=exact)


def _with_words(counts: Mapping[str, int], held_out: Sequence[Observation], name: str) -> dict[str, int]:
    """The values of a fact in training and in other cases; nothing where some of these do not say."""
    theirs = _words(held_out, name)
    return {word: counts.get(word, 0) + theirs.get(word, 0) for word in sorted({*counts, *theirs})} if theirs else {}


def _with_trained(guard: Guard, by_others: Mapping[str, Known]) -> Guard:
    """The gate with distances of training cases too, where those that did not train are too few for its level."""
    smallest = guard.level / max(1, len(guard.held_out))
    more = {
        name: held_out.joined(by_others[name])
        for name, held_out in guard.held_out.items()
        if name in by_others and not is_enough(held_out.patients, smallest)
    }
    all_distances = {**guard.held_out, **more}
    # The fewer patients tell of a score, the less it can show, and the more is extrapolated.
    patients = {name: own.patients for name, own in all_distances.items()}
    return replace(
        guard, held_out=all_distances, shares={name: n / sum(patients.values()) for name, n in patients.items()}
    )


def _by_others(guard: Guard, trained: Sequence[Observation]) -> dict[str, Known]:
    """{score: distances of training cases, each judged by those of other patients}, where no network has a say.

    These cases tell as well as those that did not train.
    """
    found = {name: list[tuple[float, str]]() for name in OF_NO_NETWORK}
    spectra = [guard.spectrum(one.sample) if one.is_seen else None for one in trained]
    _, owner = np.unique([one.patient or f"{n}" for n, one in enumerate(trained)], return_inverse=True)
    for part in range(PARTS):
        others = owner % PARTS != part
        judges = _part_of(
            guard, list(compress(trained, others)), [own for own in compress(spectra, others) if own is not None]
        )
        if judges is None:
            continue
        for case in compress(trained, owner % PARTS == part):
            distances = judges.distances(case)
            for name in found.keys() & distances.keys():
                found[name].append((distances[name], case.patient))
    return {name: Known.of(*zip(*rows, strict=True)) for name, rows in found.items() if rows}


def _part_of(guard: Guard, cases: Sequence[Observation], spectra: Sequence[Floats]) -> Guard | None:
    """The part of the gate that needs no network, by some of its training cases; None where these are too few.

    spectra: of those cases that a network has seen
    """
    observed = [one for one in cases if one.is_seen]
    if len(observed) < FEWEST:
        return None
    return replace(
        guard,
        numbers=_ranges([one.header for one in cases]),
        spectra=Reference.of(np.stack(spectra)),
        features=None,
        held_out={},
        **_composed(observed),
    )


def _composed(observations: Sequence[Observation]) -> dict[str, Any]:
    """{field of a gate: how training cases that a network has seen are composed}."""
    composed = [one.composed for one in observations if one.composed is not None]
    return {
        TEXTURE: Ranges.of(np.stack([one.texture for one in composed])),
        LAYOUT: Reference.of(np.stack([one.layout for one in composed])),
        CONTRAST: Correlated.of(np.stack([one.contrast for one in composed])),
        SYMMETRY: Ranges.of(np.stack([one.symmetry for one in composed])),
    }


def tail_note(guard: Guard) -> str:
    """A sentence on how far the gate's level can be believed."""
    fewest = min(guard.held_out.values(), key=lambda known: (known.patients, len(known)))
    whom = f"{fewest.words()} that chose nothing" if guard.exact else fewest.words("validation case")
    approximate = "" if guard.exact else "; these chose the checkpoint, so that the level is approximate"
    enough = is_enough(fewest.patients, guard.level / len(guard.held_out))
    tail = "" if enough else "; the tail beyond them is extrapolated"
    return f"The gate refuses below p {guard.level:g} by {whom}{tail}{approximate}."


def _calibrated(held_out: Sequence[Observation]) -> NDArray[np.float32]:
    """(patients, features) of cases that did not train."""
    with_features = [
        (one.patient or str(n), one.features) for n, one in enumerate(held_out) if one.features is not None
    ]
    if not with_features:
        return np.empty((0, 0), np.float32)
    return np.stack([with_features[n][1] for n in one_of_each([patient for patient, _ in with_features])]).astype(
        np.float32
    )


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


def _ranges(headers: Sequence[Header]) -> dict[str, tuple[float, float]]:
    """{fact: its middle and its spread}, of what the first header states."""
    return {name: _range(headers, name) for name in headers[0].numbers}


def _range(headers: Sequence[Header], name: str) -> tuple[float, float]:
    ranges = Ranges.of(np.array([[header.numbers[name]] for header in headers if name in header.numbers]))
    return float(ranges.middles[0]), float(ranges.spreads[0])
