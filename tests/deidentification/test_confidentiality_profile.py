"""The table of attributes: actions by hand, options, contradictions."""

from __future__ import annotations

import pytest

from hilum.deidentification.confidentiality_profile import Action, ConfidentialityProfile
from hilum.errors import UsageError

# From PS3.15 Table E.1-1, read by hand: tag, value representation, action of the basic profile.
BY_HAND = (
    (0x00080050, "SH", Action.EMPTY),  # Accession Number, Z
    (0x00080022, "DA", Action.EMPTY),  # Acquisition Date, X/Z
    (0x0008002A, "DT", Action.REPLACE),  # Acquisition DateTime, X/Z/D
    (0x00181400, "LO", Action.REPLACE),  # Acquisition Device Processing Description, X/D
    (0x00081140, "SQ", Action.MAP),  # Referenced Image Sequence, X/Z/U*
    (0x00102110, "LO", Action.REMOVE),  # Allergies, X
    (0x00080018, "UI", Action.MAP),  # SOP Instance UID, U
    (0x50041234, "LO", Action.REMOVE),  # curves, X in each of their groups
    (0x60024000, "LT", Action.REMOVE),  # Overlay Comments of the second overlay, X
    (0x00080016, "UI", Action.KEEP),  # SOP Class UID, not listed
    (0x00081167, "UI", Action.MAP),  # Multi-frame Source SOP Instance UID, not listed and yet an instance
    (0x00140104, "PN", Action.REPLACE),  # Secondary Reviewer Name, not listed and yet a name
    (0x00180050, "DS", Action.KEEP),  # Slice Thickness, not listed
)
WITH_OPTIONS = (
    ("retain-uids", 0x00080018, "UI", Action.KEEP),
    ("retain-dates", 0x00080022, "DA", Action.KEEP),
    ("shift-dates", 0x00080022, "DA", Action.SHIFT),
    ("shift-dates", 0x00100030, "DA", Action.EMPTY),  # the birth date has no option
    ("retain-characteristics", 0x00100040, "CS", Action.KEEP),
    ("retain-characteristics", 0x00102110, "LO", Action.CLEAN),
    ("retain-device", 0x00081010, "SH", Action.KEEP),
    ("retain-institution", 0x00080080, "LO", Action.KEEP),
    ("clean-descriptors", 0x0008103E, "LO", Action.CLEAN),
    ("clean-structured", 0x0040A730, "SQ", Action.CLEAN),
    ("clean-graphics", 0x00700001, "SQ", Action.CLEAN),
)


def test_each_attribute_gets_the_action_that_every_object_can_bear():
    profile = ConfidentialityProfile()
    assert [(tag, profile.action(tag, vr)) for tag, vr, _ in BY_HAND] == [(tag, action) for tag, _, action in BY_HAND]


def test_an_option_changes_the_attributes_of_its_column():
    actions = [ConfidentialityProfile(frozenset({name})).action(tag, vr) for name, tag, vr, _ in WITH_OPTIONS]
    assert actions == [action for *_, action in WITH_OPTIONS]


def test_dates_of_devices_move_with_the_others_where_both_options_are_given():
    profile = ConfidentialityProfile(frozenset({"retain-device", "shift-dates"}))
    assert profile.action(0x00181200, "DA") is Action.SHIFT  # Date of Last Calibration
    assert profile.action(0x00080020, "DA") is Action.SHIFT


@pytest.mark.parametrize(
    ("options", "words"),
    [({"clean-pixel"}, "clean-pixel"), ({"retain-dates", "shift-dates"}, "contradict"), ({"clean-faces"}, "mask")],
)
def test_an_unknown_option_a_contradiction_and_faces_are_refused(options, words):
    with pytest.raises(UsageError, match=words):
        ConfidentialityProfile(frozenset(options))


def test_the_codes_are_those_of_the_profile_and_its_options():
    profile = ConfidentialityProfile(frozenset({"shift-dates", "clean-pixels"}))
    assert [code for code, _ in profile.codes] == ["113100", "113101", "113107"]
    assert profile.temporal_information == "MODIFIED"
