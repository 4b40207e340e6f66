"""CT of which some lack their intercept, or were brought to another range."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import fingerprints
import hilum
from fingerprints import intensity
from hilum.errors import DatasetError, UsageError
from hilum.planning.rules import normalisation_rules
from hilum.quality import modality_checks
from hilum.quality.modality_checks import MIXED_SCALE
from hilum.reading import dataset_reading
from hilum.values import Dataset, Fingerprint
from situations import noisy_scan, write_scan

RNG = np.random.default_rng(0)
# Hounsfield units of a body in air: half of it air, lung, fat, muscle and some bone.
BODY = np.concatenate([RNG.normal(mean, 15, share) for mean, share in
                       ((-1000, 5000), (-750, 900), (-100, 1200), (50, 2400), (600, 500))])  # fmt: skip
LIVER = RNG.normal(100, 15, 8000)
BONE = RNG.normal(700, 250, 8000)
RAW = BODY + 1024
PADDED = np.concatenate([np.full(4000, -2000.0), BODY])


def found(*each: np.ndarray, modality: str = "CT", accepted: frozenset[str] = frozenset()) -> list[tuple]:
    """(severity, what, cases) of each finding on CT of these intensities."""
    made = enumerate(map(intensity, each))
    facts = Fingerprint(tuple(fingerprints.facts(name=f"c{n}", modality=modality, intensity=one) for n, one in made))
    return [
        (one.severity, one.what, one.cases)
        for one in modality_checks.ct_scale_problems(Dataset((), accepted=accepted), facts)
    ]


def test_ct_without_its_intercept_stops_training_until_it_is_accepted(tmp_path):
    for n in range(12):
        image, mask = noisy_scan(n)
        offset = 1024 if n % 4 == 1 else 0
        write_scan(tmp_path / "images" / f"p{n:02d}.nii.gz", image - 1000 + 700 * (mask > 0).astype(np.int16) + offset)
        write_scan(tmp_path / "labels" / f"p{n:02d}.nii.gz", mask)
    result = hilum.check(tmp_path, modality="CT")
    assert [(one.what, one.cases) for one in result.problems if one.severity == "error"] == [
        (
            "3 of 12 CT begin at about 100, the others at about -900: their numbers may lack the intercept of -1024",
            ("p01", "p05", "p09"),
        )
    ]
    assert not result.passed
    with pytest.raises(DatasetError, match=f"lack the intercept.*--accept {MIXED_SCALE}"):
        dataset_reading.refuse_unfit(result.examination)
    accepted = hilum.plan(tmp_path, modality="CT", accept=MIXED_SCALE).plan
    assert accepted.options["accept"] == MIXED_SCALE
    assert accepted["preprocessing.normalisation"][0]["method"] == "zscore"
    assert "of several scales" in accepted.decision("preprocessing.normalisation").because
    with pytest.raises(UsageError, match="no finding that can be accepted"):
        hilum.check(tmp_path, accept="mixed")


@pytest.mark.parametrize(
    ("odd", "words"),
    [
        (RAW, "may lack the intercept of -1024"),
        (BODY + 1000, "may lack the intercept of -1000"),
        (PADDED + np.where(PADDED > -1500, 1024, 0), "may lack the intercept of -1024"),
        (BODY - 1024, "may have been added twice"),
        ((BODY + 1050) / 4000, "span too little for Hounsfield units"),
        (BODY / 1000, "span too little for Hounsfield units"),
        (np.clip((BODY + 160) / 400 * 255, 0, 255), "grey values of 0 to 255"),
        ((BODY + 1100) * 30, "too high for Hounsfield units"),
    ],
)
def test_each_group_of_another_scale_is_named(odd, words):
    for count in (1, 3):
        [(severity, what, cases)] = found(*[BODY, PADDED] * 2, *[odd] * count)
        assert severity == "error"
        assert words in what
        assert cases == tuple(f"c{4 + n}" for n in range(count))
    [(severity, _, _)] = found(BODY, BODY, odd, accepted=frozenset({MIXED_SCALE}))
    assert severity == "warning"


def test_two_groups_are_two_findings_and_the_others_are_named_by_their_lowest_value():
    whats = [what for _, what, _ in found(BODY, BODY, BODY, RAW, BODY / 1000)]
    assert [what.partition(":")[0] for what in whats] == [
        "1 of 5 CT begin at about -10, the others at about -1000",
        "1 of 5 CT begin at about -1, the others at about -1000",
    ]


@pytest.mark.parametrize(
    "other", [LIVER, LIVER[:9] - 60, BONE, BODY[BODY > -900], PADDED, np.clip(BODY, -160, 240), np.zeros(9)]
)
def test_hounsfield_units_of_another_part_of_the_body_are_of_the_same_scale(other):
    assert not found(BODY, BODY, other)
    assert not found(BODY, other, other, other)


def test_numbers_of_one_scale_and_those_of_other_kinds_of_image_are_never_mixed():
    assert not found(RAW, RAW, RAW)
    assert not found(RAW, BODY, modality="MR")
    assert set(modality_checks.ct_scales([intensity(BODY / 1000)] * 3)) != {""}


def test_a_set_of_one_scale_keeps_its_window():
    one = fingerprints.several(3, modality="CT", intensity=intensity(BODY))
    mixed = replace(one, cases=(*one.cases, fingerprints.facts(modality="CT", intensity=intensity(RAW))))
    assert normalisation_rules.decide_normalisation(one, ["0"], "CT", []).value[0]["method"] == "window"
    assert normalisation_rules.decide_normalisation(mixed, ["0"], "CT", []).value[0]["method"] == "zscore"
