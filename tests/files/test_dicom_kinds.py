"""What an image shows is told from its type, however the maker writes it."""

from __future__ import annotations

import pytest

from hilum.files.dicom.reading import file_frames


@pytest.mark.parametrize(
    ("image_type", "component", "kind"),
    [
        (("ORIGINAL", "PRIMARY", "M", "ND", "NORM"), "", "magnitude"),  # Siemens
        (("ORIGINAL", "PRIMARY", "P", "ND"), "", "phase"),
        (("ORIGINAL", "PRIMARY", "M_FFE", "M", "FFE"), "", "magnitude"),  # Philips
        (("ORIGINAL", "PRIMARY", "R_IR", "R", "IR"), "", "real"),
        (("ORIGINAL", "PRIMARY", "I_SE", "I", "SE"), "", "imaginary"),
        (("DERIVED", "PRIMARY", "PHASE MAP"), "", "phase"),
        (("ORIGINAL", "PRIMARY", "T1", "NONE"), "MAGNITUDE", "magnitude"),  # enhanced
        (("ORIGINAL", "PRIMARY", "T1", "FIELD_MAP"), "REAL", "field map"),  # the map says more than its part
        (("DERIVED", "PRIMARY", "ADC", "NONE"), "MAGNITUDE", "ADC"),
        (("ORIGINAL", "PRIMARY", "MPR", "LOCALIZER"), "", "mpr\\localizer"),  # no word begins with a part's letter
        (("ORIGINAL", "PRIMARY"), "", ""),
        ((), "", ""),
    ],
)
def test_a_kind_has_one_word(image_type: tuple[str, ...], component: str, kind: str) -> None:
    assert file_frames.kind_in_image_type(image_type, component) == kind
