from __future__ import annotations

from dataclasses import fields

import pytest

from hilum.files import modality_words
from hilum.planning.rules import image_profiles
from hilum.planning.rules.image_profiles import PROFILES, UNKNOWN
from hilum.transforms.augment import Augmentation


@pytest.mark.parametrize(
    ("stated", "name"),
    [
        ("MRI", "MRI"),
        ("T1", "MRI"),
        ("FLAIR", "MRI"),
        ("CT", "CT"),
        ("chest X-ray", "x-ray"),
        ("CR", "x-ray"),
        ("ultrasound", "ultrasound"),
        ("photoacoustic", "photoacoustic"),
        ("optoacoustic imaging", "photoacoustic"),
        ("mammography", "mammography"),
        ("fundus", "fundus photograph"),
        ("OCT", "OCT"),
        ("WSI", "histopathology"),
        ("dermoscopy", "dermatology"),
        ("endoscopy", "endoscopy"),
        ("PET", "PET"),
        ("GM", "microscopy"),
        ("fluorescence microscopy", "microscopy"),
        ("banana", "unknown"),
    ],
)
def test_what_files_and_people_say_finds_its_profile(stated, name):
    assert image_profiles.profile_for(modality_words.modality_word(stated)).name == name


def test_each_word_of_dicom_belongs_to_one_profile():
    codes = [code for profile in PROFILES for code in profile.codes]
    assert len(set(codes)) == len(codes)
    assert image_profiles.profile_for("DOC") is UNKNOWN


def test_every_change_is_one_that_the_augmentation_knows():
    known = {field.name for field in fields(Augmentation)}
    for profile in PROFILES:
        assert set(profile.changes) <= known
        Augmentation(**profile.changes)


def test_every_profile_says_why_it_may_be_mirrored_or_not_and_where_that_comes_from():
    for profile in PROFILES:
        assert profile.why["mirrors"]
        assert profile.source


def test_only_scans_of_mr_show_what_happens_in_k_space_and_only_ct_shows_metal():
    for profile in PROFILES:
        assert ("ghosting" in profile.changes) == (profile.name == "MRI")
        assert ("metal" in profile.changes) == (profile.name == "CT")
