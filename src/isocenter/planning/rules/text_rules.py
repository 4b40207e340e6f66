"""Rule of free text among covariates: the few numbers that say most about how texts of the training cases differ.

Words and letter triples are hashed to places, which count more the fewer patients have them; a singular value
decomposition of the training texts gives the numbers (latent semantic analysis, Deerwester et al. 1990). A place that
fewer than five patients have counts nothing, so that a name, or what a single patient told, leaves no trace in a plan
or a model.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from isocenter.quality import label_proxies
from isocenter.quality.label_proxies import PROXY
from isocenter.runtime import covariate_encoding
from isocenter.runtime.covariate_encoding import FreeText
from isocenter.values import Floats, covariate_values

DEERWESTER = "doi:10.1002/(SICI)1097-4571(199009)41:6<391::AID-ASI1>3.0.CO;2-9"
NUMBERS = 16
# Patients that share a place.
FEWEST_PATIENTS = 5
# Texts from which the numbers are found; of more, so many in even steps.
MOST_TEXTS = 10_000
# Of the subspace iteration: directions beside those that are kept, and rounds (Halko et al., doi:10.1137/090771806).
BESIDE, ROUNDS = 8, 12
LARGEST = 127
# Of the largest deviation; a number that hardly varies over the training texts would be huge for a new one.
LEAST_DEVIATION = 0.05
DIGITS = 6


def encode_free_text(
    name: str, values: Sequence[Any], references: Sequence[Mapping[str, Any]], patients: Sequence[str]
) -> FreeText | str:
    """The encoding of a column of free text, or the reason why it is left out."""
    present = [n for n, one in enumerate(values) if not covariate_values.is_missing(one)]
    of_text = np.stack([covariate_encoding.text_places(str(values[n])) for n in present])
    weights = _place_weights(of_text, [patients[n] for n in present])
    directions = leading_directions((of_text * weights)[:: -(-len(present) // MOST_TEXTS)], NUMBERS)
    basis = weights[:, None] * directions
    if not basis.any():
        return f"texts without a word that {FEWEST_PATIENTS} training patients share"
    whole = np.round(LARGEST * basis / np.abs(basis).max()).astype(np.int8)
    numbers = of_text @ whole
    deviations = numbers.std(axis=0)
    if deviations.max() < 1e-6:
        return "alike in all training cases that have it"
    whole, numbers = (one[:, deviations > LEAST_DEVIATION * deviations.max()] for one in (whole, numbers))
    for column in numbers.T:
        known = dict(zip(present, column.tolist(), strict=True))
        score = label_proxies.label_association(
            [known.get(n) for n in range(len(values))], list(references), list(patients)
        )
        if score >= PROXY:
            return f"a proxy of the label: its words predict it by themselves (score {score:.3f} of 1)"
    means, deviations = (
        tuple(float(f"{one:.{DIGITS}g}") for one in own) for own in (numbers.mean(axis=0), numbers.std(axis=0))
    )
    missing = round(1 - len(present) / len(values), DIGITS)
    return FreeText(name, covariate_encoding.pack_weights(whole), means, deviations, missing)


def _place_weights(of_text: Floats, patients: Sequence[str]) -> Floats:
    """(places,) the logarithm of patients over those who have it; 0 for what few have."""
    people, owner = np.unique(patients, return_inverse=True)
    has = np.zeros((len(people), of_text.shape[1]), dtype=bool)
    np.logical_or.at(has, owner, of_text > 0)
    count = has.sum(axis=0)
    return np.where(count >= FEWEST_PATIENTS, np.log((1 + len(people)) / (1 + count)), 0.0)


def leading_directions(rows: Floats, count: int) -> Floats:
    """(columns, count or fewer) right singular vectors of the largest singular values, their largest entry positive."""
    wanted = min(count, *rows.shape)
    directions = np.random.default_rng(0).normal(size=(rows.shape[1], min(count + BESIDE, *rows.shape)))
    for _ in range(ROUNDS):
        directions, _ = np.linalg.qr(rows.T @ (rows @ directions))
    _, _, turned = np.linalg.svd(rows @ directions, full_matrices=False)
    found = (directions @ turned.T)[:, :wanted]
    return np.asarray(found * np.sign(found[np.abs(found).argmax(axis=0), np.arange(wanted)]))
