"""Patients are the unit of a gate: cases of one patient are alike, and many of them say little about another."""

from __future__ import annotations

import json

import numpy as np
import pytest
from numpy.testing import assert_allclose
from safetensors.numpy import load

from hilum.runtime.guard import case_distances, image_gate, image_observation
from hilum.runtime.guard.case_distances import KnownDistances
from hilum.runtime.guard.image_gate import Guard
from hilum.runtime.guard.image_observation import Observation
from hilum.values import Geometry, Image
from matrices import thinned

DRAWS = 4000


def alarms(patients: int, cases: int, level: float, *, within: float, as_patients: bool = False) -> float:
    """How often a case of a new patient is refused at the level; distances of a patient differ by `within` alone.

    as_patients: whether each case counts as a patient
    """
    rng = np.random.default_rng(0)
    own = rng.gamma(4.0, size=(DRAWS, patients + 1, 1)) + within * rng.gamma(4.0, size=(DRAWS, patients + 1, cases))
    names = ["" if as_patients else f"{n // cases}" for n in range(patients * cases)]
    weights = KnownDistances.from_distances(np.zeros(len(names)).tolist(), names).weights
    known = np.sort(own[:, :-1].reshape(DRAWS, -1), axis=1)
    # In the order of distances weights stay what they are, because all patients have as many cases.
    each = [
        case_distances.p_value(float(new[-1, 0]), KnownDistances(row, weights), level)
        for new, row in zip(own, known, strict=True)
    ]
    return float(np.mean(np.array(each) < level))


@pytest.mark.parametrize(("patients", "cases"), [(10, 40), (25, 8), (120, 2)])
@pytest.mark.parametrize("within", thinned(1, [0.0, 0.3]))
def test_good_images_of_a_new_patient_are_refused_at_the_level_at_most(patients, cases, within):
    for level in (0.05, 0.01):
        most = level + 3 * np.sqrt(level * (1 - level) / DRAWS)
        assert alarms(patients, cases, level, within=within) <= most
    if cases > 2:
        assert alarms(patients, cases, 0.05, within=within, as_patients=True) > 0.05 + 3 * np.sqrt(0.05 * 0.95 / DRAWS)


def test_a_case_of_one_of_several_weighs_its_share():
    known = KnownDistances.from_distances([3.0, 1.0, 2.0, 5.0], ["a", "b", "a", ""])
    assert_allclose(known.distances, [1, 2, 3, 5])
    assert_allclose(known.weights, [1, 0.5, 0.5, 1])
    assert known.patients == 3 and known.words() == "4 cases of 3 patients"
    assert case_distances.p_value(2.5, known, 0.5) == pytest.approx((1 + 1.5) / 4)
    assert case_distances.p_value(9.0, known, 0.5) == pytest.approx(1 / 4)
    both = known.join(KnownDistances.from_distances([2.5], ["c"]))
    assert_allclose(both.distances, [1, 2, 2.5, 3, 5])
    assert both.patients == 4


def test_cases_of_a_single_patient_refuse_nothing_by_their_distances():
    one = KnownDistances.from_distances([1.0, 1.1, 1.2, 1.3, 1.4, 1.5], ["a"] * 6)
    assert case_distances.p_value(100.0, one, 0.01) == 0.5


def seen(rng: np.random.Generator, patient: str, middle: float = 0.0) -> Observation:
    still = Image(np.zeros((1, 16, 16), np.float32), Geometry.of_pixels((16, 16)))
    sample = rng.normal(middle, 1.0, size=(1, 400)).astype(np.float32)
    return Observation(
        image_observation.header_facts(still), sample, image_observation.window_composition(sample), patient=patient
    )


def gate(patients: int, cases: int, level: float, seed: int = 0) -> Guard:
    """Of training cases and others of so many patients each, whose intensities differ among patients."""
    rng = np.random.default_rng(seed)
    middles = rng.normal(0, 0.5, (2, patients))
    trained, held_out = (
        [seen(rng, f"{part} {n // cases}", own[n // cases]) for n in range(patients * cases)]
        for part, own in zip(("train", "val"), middles, strict=True)
    )
    made = image_gate.fit_guard(trained, held_out, level, exact=True)
    assert made is not None
    return made


def test_many_cases_of_few_patients_are_not_enough_for_a_level_and_the_gate_says_so():
    note = image_gate.tail_note(gate(10, 12, 0.01))  # training cases too, which are judged by others
    assert "240 cases of 20 patients" in note and "extrapolated" in note
    assert image_gate.tail_note(gate(70, 1, 0.1)) == (
        "The gate refuses an image with a p-value below 0.1, by comparison with 70 cases that chose nothing."
    )


def test_a_gate_keeps_whose_its_distances_are():
    made = gate(10, 4, 0.05)
    arrays = load(made.content)
    again = Guard.from_record(json.loads(json.dumps(made.settings)), arrays)
    assert again.held_out["intensities"].patients == made.held_out["intensities"].patients
    odd = seen(np.random.default_rng(9), "new", 1.2)
    assert again.verdict(odd) == made.verdict(odd)
