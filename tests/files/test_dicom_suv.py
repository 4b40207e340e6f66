"""SUV: activity over the decayed dose per gram, or the reason why it is not known."""

from __future__ import annotations

import warnings
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose
from pydicom.dataset import Dataset

from dicom_objects import picture
from hilum.files.dicom.reading import pixel_values, suv_scaling
from hilum.files.dicom.reading.suv_scaling import SuvUnknownError


def load(path: Path) -> Dataset:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        return pydicom.dcmread(path)


def item(**tags: Any) -> Dataset:
    dataset = Dataset()
    for keyword, value in tags.items():
        setattr(dataset, keyword, value)
    return dataset


def ct(**tags: Any) -> Dataset:
    return picture(np.zeros((2, 2), np.int16), Modality="CT", **tags)


def pet(**tags: Any) -> Dataset:
    drug = item(
        RadionuclideTotalDose="370000000", RadionuclideHalfLife="6586.2", RadiopharmaceuticalStartTime="100000.00"
    )
    stated: dict[str, Any] = {
        "Units": "BQML",
        "CorrectedImage": ["ATTN", "DECY"],
        "DecayCorrection": "START",
        "PatientWeight": "70",
        "SeriesDate": "20200101",
        "SeriesTime": "110000",
        "AcquisitionDate": "20200101",
        "AcquisitionTime": "110500",
        "RadiopharmaceuticalInformationSequence": [drug],
        "RescaleSlope": "2",
        "RescaleIntercept": "0",
    }
    dataset = picture(np.zeros((2, 2), np.int16), Modality="PT", **{k: v for k, v in stated.items() if k not in tags})
    for keyword, value in tags.items():
        if value is not None:
            setattr(dataset, keyword, value)
    return dataset


def test_suv_is_activity_over_the_decayed_dose_per_gram():
    assert_allclose(suv_scaling.suv_bw_factor([pet()]), 70000 / (370e6 * 0.5 ** (3600 / 6586.2)))


def test_corrected_to_the_injection_the_dose_does_not_decay():
    assert_allclose(suv_scaling.suv_bw_factor([pet(DecayCorrection="ADMIN")]), 70000 / 370e6)


def test_an_injection_before_midnight_is_the_day_before():
    night = pet(SeriesTime="001500", AcquisitionTime="002000")
    night.RadiopharmaceuticalInformationSequence[0].RadiopharmaceuticalStartTime = "234500"
    assert_allclose(suv_scaling.suv_bw_factor([night]), 70000 / (370e6 * 0.5 ** (1800 / 6586.2)))


def test_counts_of_philips_have_the_makers_own_factor():
    counts = pet(Units="CNTS")
    with pytest.raises(SuvUnknownError, match="7053,1000"):
        suv_scaling.suv_bw_factor([counts])
    block = counts.private_block(0x7053, "Philips PET Private Group", create=True)
    block.add_new(0x00, "DS", "0.000551")
    assert suv_scaling.suv_bw_factor([counts]) == 0.000551


def test_grams_per_millilitre_are_suv_already():
    assert pixel_values.meaning_of_series([pet(Units="GML")]).unit == "SUVbw"
    assert suv_scaling.suv_bw_factor([pet(Units="GML")]) == 1.0


MISSING = {
    "PatientWeight": ({"PatientWeight": None}, "PatientWeight"),
    "attenuation correction": ({"CorrectedImage": ["DECY"]}, "does not name ATTN"),
    "decay correction": ({"DecayCorrection": "NONE"}, "DecayCorrection"),
    "dose": ({"RadiopharmaceuticalInformationSequence": []}, "RadionuclideTotalDose"),
    "series after acquisition": ({"SeriesTime": "120000"}, "later than its acquisition"),
    "units": ({"Units": "PROPCPS"}, "PROPCPS"),
}


@pytest.mark.parametrize(("tags", "reason"), MISSING.values(), ids=MISSING.keys())
def test_without_what_suv_needs_activity_stays_and_the_reason_is_given(tags: dict[str, Any], reason: str):
    found = pixel_values.meaning_of_series([pet(**tags)])
    assert found.suv is None
    assert found.unit != "SUVbw"
    assert any(reason in note for note in found.notes)


def injected(moment: str, half_life: str = "6586.2", time: str | None = None, **tags: Any) -> Dataset:
    """A scan at 11:00 on 2020-01-01 after an injection at a stated date and time."""
    scan = pet(**tags)
    drug = scan.RadiopharmaceuticalInformationSequence[0]
    drug.RadiopharmaceuticalStartDateTime, drug.RadionuclideHalfLife = moment, half_life
    drug.RadiopharmaceuticalStartTime = time
    return scan


@pytest.mark.parametrize("moment", ["20191231100000", "20191229100000", "19000101100000"])
def test_an_injection_on_a_date_that_was_shifted_otherwise_gives_no_suv(moment: str):
    found = pixel_values.meaning_of_series([injected(moment)])
    assert (found.suv, found.unit) == (None, "Bq/ml")
    assert any("h before the scan" in note for note in found.notes)


def test_a_nuclide_that_lives_for_days_is_scanned_days_after_the_injection():
    week = injected("20191225110000", half_life="282276")  # zirconium-89
    assert_allclose(suv_scaling.suv_bw_factor([week]), 70000 / (370e6 * 0.5 ** (7 * 86400 / 282276)))


@pytest.mark.parametrize(
    ("moment", "zone", "time"),
    [
        ("20200101090000.00+0000", "+0100", None),
        ("20200101100000.00+0100", "+0100", None),
        ("20200101043000-0430", "+0100", None),
        ("20200101100000", "+0100", None),
        ("20200101100000+0100", None, "100000.00"),  # the same clock as that of the series
    ],
)
def test_an_injection_may_be_stated_in_another_time_zone(moment: str, zone: str | None, time: str | None):
    scan = injected(moment, time=time, TimezoneOffsetFromUTC=zone)
    assert_allclose(suv_scaling.suv_bw_factor([scan]), 70000 / (370e6 * 0.5 ** (3600 / 6586.2)))


@pytest.mark.parametrize("time", [None, "100000"])
def test_an_injection_in_a_time_zone_gives_no_suv_where_that_of_the_series_is_not_known(time: str | None):
    with pytest.raises(SuvUnknownError, match=r"TimezoneOffsetFromUTC \(0008,0201\) is missing"):
        suv_scaling.suv_bw_factor([injected("20200101090000+0000", time=time)])


@pytest.mark.parametrize(
    ("scan", "reason"),
    [
        (pet(PatientWeight="70000"), "70000 kg cannot be a weight"),
        (injected("20200101100000", half_life="109.77"), "109.77 s is that of no nuclide"),
        (injected("20200101100000", half_life="1.83"), "1.83 s is that of no nuclide"),
        (injected("20200101100000", half_life="122.2"), "1.0 h before the scan"),
    ],
)
def test_numbers_in_other_units_give_no_suv(scan: Dataset, reason: str):
    with pytest.raises(SuvUnknownError, match=reason):
        suv_scaling.suv_bw_factor([scan])


def test_files_of_one_series_must_agree_on_suv():
    with pytest.raises(SuvUnknownError, match="different"):
        suv_scaling.suv_bw_factor([pet(), pet(PatientWeight="71")])
