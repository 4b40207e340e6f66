"""A gate from what a model saw of its training cases, and of cases that did not train it."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import numpy as np
from numpy.typing import NDArray

from isocenter.errors import counted
from isocenter.runtime.guard.distances import Floats, Reference, means_by_patient
from isocenter.runtime.guard.guard import HEADER, SCORES, Guard, header_distance, spectrum
from isocenter.runtime.guard.header import Header
from isocenter.runtime.guard.observation import Observation
from isocenter.runtime.guard.p_values import is_enough

# Training cases that are looked at, and cases without which nothing is refused.
MOST_TRAINED, FEWEST = 200, 5
# Bins of a histogram, over the range of all but these shares of the intensities.
BINS, TAILS = 32, 1e-3
# Spacings and fields of view that differ by a tenth are alike: those of a set may not differ at all.
LEAST_SPREAD = 0.1
# Of a normal distribution, the standard deviation for each mean absolute deviation.
OF_MEAN_DEVIATION = float(np.sqrt(np.pi / 2))
# In so many parts headers of training cases are judged by the others.
PARTS = 5


def fitted_guard(
    trained: Sequence[Observation], held_out: Sequence[Observation], level: float, *, exact: bool
) -> Guard | None:
    """A gate; None where there are too few cases for one.

    trained:  the model's training cases, or some of them
    held_out: cases that did not train it
    exact:    as in `Guard`
    """
    seen = [one for one in trained if one.is_seen]
    if min(len(seen), sum(one.is_seen for one in held_out)) < FEWEST:
        return None
    edges = _edges([one.sample for one in seen])
    spectra = Reference.of(np.stack([spectrum(one.sample, edges) for one in seen]))
    rows = [one.features for one in seen if one.features is not None]
    features = Reference.of(np.stack(rows)) if len(rows) == len(seen) else None
    headers = [one.header for one in trained]
    words = {name: _words(headers, name) for name in sorted({name for header in headers for name in header.words})}
    numbers = _ranges(headers)
    bare = Guard(level, exact, words, numbers, edges, spectra, features, {}, len(seen))
    guard = refitted(bare, held_out, exact=exact)
    if HEADER not in guard.held_out:
        return guard
    distances = np.sort([*guard.held_out[HEADER].tolist(), *_crossed(headers)])
    return replace(guard, held_out={**guard.held_out, HEADER: distances})


def refitted(guard: Guard, held_out: Sequence[Observation], *, exact: bool) -> Guard:
    """The gate with other cases that did not train, by which it judges distances; the same where these are too few."""
    bare = replace(guard, held_out={})
    each = [distances for one in held_out if one.is_seen and (distances := bare.distances(one))]
    if len(each) < FEWEST:
        return guard
    known = [name for name in SCORES if all(name in one for one in each)]
    judged = {name: np.sort(np.array([one[name] for one in each])) for name in known}
    words = {name: own and _with_words(own, held_out, name) for name, own in guard.words.items()}
    return replace(guard, words=words, held_out=judged, calibrated=_calibrated(held_out), exact=exact)


def _with_words(known: Sequence[str], held_out: Sequence[Observation], name: str) -> tuple[str, ...]:
    """What a fact was in training and in other cases; nothing where some of these do not say."""
    theirs = _words([one.header for one in held_out], name)
    return tuple(sorted({*known, *theirs})) if theirs else ()


def _crossed(headers: Sequence[Header]) -> list[float]:
    """Distances of training cases by the ranges of others: no network has a say in a header, so these tell as well."""
    made = []
    for part in range(PARTS):
        rest = [one for number, one in enumerate(headers) if number % PARTS != part]
        made += [header_distance(one, _ranges(rest)) for one in headers[part::PARTS]]
    return [one for one in made if one is not None]


def tail_note(guard: Guard) -> str:
    """How far the gate's level can be believed."""
    count = min(len(one) for one in guard.held_out.values())
    whom = f"{counted(count, 'case')} that chose nothing" if guard.exact else f"{counted(count, 'validation case')}"
    approximate = "" if guard.exact else "; these chose the checkpoint, so that the level is approximate"
    enough = is_enough(count, guard.level / len(guard.held_out))
    tail = "" if enough else "; the tail beyond them is extrapolated"
    return f"The gate refuses below p {guard.level:g} by {whom}{tail}{approximate}."


def _calibrated(held_out: Sequence[Observation]) -> NDArray[np.float32]:
    """(patients, features) of cases that did not train."""
    known = [(one.patient or str(n), one.features) for n, one in enumerate(held_out) if one.features is not None]
    if not known:
        return np.empty((0, 0), np.float32)
    means = means_by_patient(np.stack([own for _, own in known]), [patient for patient, _ in known])
    return means.astype(np.float32)


def _edges(samples: Sequence[np.ndarray]) -> Floats:
    """(channels, bins - 1) between the bins, equally wide; what lies beyond is in the outer ones."""
    pooled = np.concatenate(samples, axis=1).astype(np.float64)
    low, high = np.nanquantile(pooled, [TAILS, 1 - TAILS], axis=1)
    return np.linspace(low, np.maximum(high, low + np.finfo(np.float32).eps), BINS - 1, axis=1)


def _words(headers: Sequence[Header], name: str) -> tuple[str, ...]:
    """What a fact was in training; nothing where some cases did not say."""
    known = {header.words.get(name, "") for header in headers}
    return () if "" in known else tuple(sorted(known))


def _ranges(headers: Sequence[Header]) -> dict[str, tuple[float, float]]:
    """{fact: its middle and its spread}, of what the first header states."""
    return {name: _range(headers, name) for name in headers[0].numbers}


def _range(headers: Sequence[Header], name: str) -> tuple[float, float]:
    values = np.array([header.numbers[name] for header in headers if name in header.numbers])
    middle = float(np.median(values))
    return middle, max(LEAST_SPREAD, OF_MEAN_DEVIATION * float(np.mean(np.abs(values - middle))))
