"""One object without identity: planted people, dates, references, private elements, reports."""

from __future__ import annotations

from io import BytesIO
from pathlib import Path

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

import planted_identities
from hilum.deidentification import dicom_objects
from hilum.deidentification.attribute_cleaning import IDENTIFYING, CleaningRules, ObjectCleaner
from hilum.deidentification.common_words import FEWEST_PATIENTS, CommonWords
from hilum.deidentification.confidentiality_profile import ConfidentialityProfile
from hilum.deidentification.dicom_objects import IdentifierSurvey
from hilum.deidentification.keyed_names import KeyedNames
from planted_identities import IDENTITIES, Identity, code
from written_dicom import write_slice

NAMES = KeyedNames(bytes(32))


def clean_file(path: Path, *options: str, words: CommonWords | None = None) -> tuple[Dataset, ObjectCleaner, bytes]:
    """The object without identity, who cleaned it, and the bytes of its file."""
    rules = CleaningRules(ConfidentialityProfile(frozenset(options)), NAMES, words or CommonWords())
    survey = IdentifierSurvey(rules)
    facts = survey.examine(path)
    cleaner = ObjectCleaner(rules, facts.patient, survey.identifiers[facts.patient])
    target = path.with_suffix(".clean")
    dicom_objects.write_clean(dicom_objects.read_whole(path), cleaner, target, str(path))
    content = target.read_bytes()
    return pydicom.dcmread(BytesIO(content)), cleaner, content


def a_slice(path: Path, **tags: object) -> Path:
    """A CT slice with some tags."""
    return write_slice(path, np.arange(64, dtype=np.int16).reshape(8, 8), **tags)


@pytest.mark.parametrize("who", IDENTITIES, ids=lambda one: one.encoding)
@pytest.mark.parametrize("options", ["", "all"])
def test_nothing_of_a_planted_person_is_left_in_any_byte(tmp_path, who, options):
    planted_identities.write_planted(a_slice(tmp_path / "bare.dcm"), tmp_path / "planted.dcm", who)
    assert set(who.traces((tmp_path / "planted.dcm").read_bytes())) >= {who.number, who.birth, "Irrlichtgasse"}
    chosen = [
        *("clean-descriptors", "clean-structured", "retain-safe-private", "retain-characteristics"),
        *("retain-device", "retain-institution", "shift-dates"),
    ]
    cleaned, cleaner, content = clean_file(tmp_path / "planted.dcm", *(chosen if options else ()))
    assert who.traces(content) == []
    assert cleaner.counts[IDENTIFYING] >= 4
    assert cleaned.PixelData == pydicom.dcmread(tmp_path / "planted.dcm").PixelData
    assert cleaned.FilterMaterial == ["", "COPPER"]
    assert str(cleaned.PatientName) == cleaned.PatientID == cleaner.patient


def test_private_elements_go_and_numbers_about_the_image_stay_where_they_may(tmp_path):
    planted_identities.write_planted(a_slice(tmp_path / "bare.dcm"), tmp_path / "planted.dcm", IDENTITIES[0])
    bare, _, _ = clean_file(tmp_path / "planted.dcm")
    assert [tag for tag in bare.keys() if tag.is_private] == []  # noqa: SIM118 - iteration gives elements
    kept, _, _ = clean_file(tmp_path / "planted.dcm", "retain-safe-private")
    private = {str(element.tag): element.value for element in kept if element.tag.is_private}
    assert private == {"(0019,0010)": "SIEMENS MR HEADER", "(0019,100C)": 1000}


def test_the_object_states_how_its_identity_was_removed(tmp_path):
    cleaned, _, content = clean_file(a_slice(tmp_path / "one.dcm"), "shift-dates")
    assert cleaned.PatientIdentityRemoved == "YES"
    codes = [item.CodeValue for item in cleaned.DeidentificationMethodCodeSequence]
    assert codes == ["113100", "113107"]
    assert cleaned.LongitudinalTemporalInformationModified == "MODIFIED"
    assert cleaned.file_meta.MediaStorageSOPInstanceUID == cleaned.SOPInstanceUID
    assert content[:128] == bytes(128)


def test_with_moved_dates_intervals_references_and_times_of_day_hold(tmp_path):
    first = a_slice(tmp_path / "a.dcm", PatientID="7", StudyDate="20200229", AcquisitionDateTime="20200301101500.5")
    second = a_slice(tmp_path / "b.dcm", PatientID="7", StudyDate="20200310", ContentTime="101500")
    dataset = pydicom.dcmread(second)
    source = Dataset()
    source.ReferencedSOPClassUID, source.ReferencedSOPInstanceUID = (
        dataset.SOPClassUID,
        pydicom.dcmread(first).SOPInstanceUID,
    )
    dataset.SourceImageSequence = [source]
    dataset.save_as(second)
    a, b = (clean_file(path, "shift-dates")[0] for path in (first, second))
    days = [np.datetime64(f"{d[:4]}-{d[4:6]}-{d[6:8]}") for d in (a.StudyDate, a.AcquisitionDateTime, b.StudyDate)]
    assert (days[1] - days[0], days[2] - days[0]) == (np.timedelta64(1), np.timedelta64(10))
    assert (a.AcquisitionDateTime[8:], b.ContentTime) == ("101500.5", "101500")
    assert b.SourceImageSequence[0].ReferencedSOPInstanceUID == a.SOPInstanceUID


def test_the_same_key_gives_the_same_bytes(tmp_path):
    path = a_slice(tmp_path / "a.dcm", PatientID="7", StudyDate="20200229")
    assert clean_file(path, "shift-dates")[2] == clean_file(path, "shift-dates")[2]


def test_a_patient_without_a_number_is_known_by_the_study(tmp_path):
    paths = [
        a_slice(tmp_path / f"{n}.dcm", PatientID=number, StudyInstanceUID=f"1.2.{n // 2}")
        for n, number in enumerate(["", "unknown", "", "5"])
    ]
    patients = [clean_file(path)[0].PatientID for path in paths]
    assert patients[0] == patients[1] != patients[2] != patients[3]


def test_descriptions_keep_words_that_ten_patients_share_and_numbers_beside_them(tmp_path):
    words = CommonWords()
    for patient in range(FEWEST_PATIENTS):
        words.add("MR brain axial", f"P{patient}")
    path = a_slice(
        tmp_path / "a.dcm", SeriesDescription="Brain axial 3.5 mm of Ms Quast, room 12345", ProtocolName="Quast"
    )
    cleaned, _, _ = clean_file(path, "clean-descriptors", words=words)
    assert cleaned.SeriesDescription == "Brain axial 3.5"
    assert "ProtocolName" not in cleaned or not cleaned.ProtocolName or cleaned.ProtocolName == "REMOVED"


def report(path: Path) -> Path:
    """A structured report with a text, a name, a code, a number and coordinates."""
    a_slice(path, PatientName="Lee^Ann", PatientID="77")
    dataset = pydicom.dcmread(path)
    dataset.SOPClassUID, dataset.Modality = "1.2.840.10008.5.1.4.1.1.88.33", "SR"
    for keyword in ("PixelData", "Rows", "Columns"):
        del dataset[keyword]
    items = []
    for kind, values in (
        ("TEXT", {"TextValue": "Asleep, says the neighbour"}),
        ("PNAME", {"PersonName": "Somebody^Else"}),
        ("CODE", {"ConceptCodeSequence": [code("1", "mass")]}),
        ("NUM", {"MeasuredValueSequence": [Dataset()]}),
        ("SCOORD", {"GraphicData": [1.0, 2.0], "GraphicType": "POINT"}),
        ("CONTAINER", {"ContentSequence": [Dataset()]}),
    ):
        item = Dataset()
        item.ValueType = kind
        for keyword, value in values.items():
            setattr(item, keyword, value)
        items.append(item)
    items[3].MeasuredValueSequence[0].NumericValue = "12"
    items[5].ContentSequence[0].ValueType, items[5].ContentSequence[0].TextValue = "TEXT", "deeper text"
    dataset.ContentSequence = items
    dataset.save_as(path)
    return path


def test_a_report_is_an_empty_container_and_with_the_option_its_codes_numbers_and_coordinates(tmp_path):
    path = report(tmp_path / "sr.dcm")
    bare, _, _ = clean_file(path)
    [item] = bare.ContentSequence
    assert (item.ValueType, "TextValue" in item) == ("CONTAINER", False)
    cleaned, _, content = clean_file(path, "clean-structured")
    text, name, coded, number, place, inner = cleaned.ContentSequence
    assert (text.TextValue, str(name.PersonName or "")) == ("", "")
    assert coded.ConceptCodeSequence[0].CodeMeaning == "mass"
    assert (number.MeasuredValueSequence[0].NumericValue, list(place.GraphicData)) == (12, [1.0, 2.0])
    assert inner.ContentSequence[0].TextValue == ""
    assert b"deeper" not in content


def test_a_short_name_is_searched_for_as_a_word_and_accents_do_not_hide_it(tmp_path):
    path = a_slice(
        tmp_path / "a.dcm",
        PatientName="Lée^Ann",
        PatientID="77001",
        SpecificCharacterSet="ISO_IR 100",
        ContrastBolusAgent="asleep, channel 4",
        FilterType="LEE",
        ScanOptions="ANN",
        ContrastBolusRoute="for 0077001",
    )
    cleaned, _, _ = clean_file(path)
    assert cleaned.ContrastBolusAgent == "REMOVED" or "asleep" in cleaned.ContrastBolusAgent
    assert (cleaned.FilterType, cleaned.ScanOptions, cleaned.ContrastBolusRoute) == ("", "", "")


def test_whatever_lies_in_a_known_element_of_another_kind_is_searched_too(tmp_path):
    who = Identity("ISO_IR 100", "latin-1", "Quittenbaum^Ottilie")
    path = a_slice(tmp_path / "a.dcm", PatientName=who.name, PatientID=who.number)
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x00282000, "OB", b"profile of Quittenbaum ")  # ICC Profile
    dataset.SpecificCharacterSet = "ISO_IR 100"
    dataset.save_as(path)
    cleaned, _, content = clean_file(path)
    assert not cleaned.ICCProfile
    assert who.traces(content) == []


def test_what_is_no_text_is_not_cleaned_as_one(tmp_path):
    path = a_slice(tmp_path / "a.dcm", StudyDate="20200101", TimezoneOffsetFromUTC="+0100")
    dataset = pydicom.dcmread(path)
    dataset.add_new(0x0016002B, "OB", b"whatever a camera notes ")  # Maker Note
    dataset.save_as(path)
    cleaned, _, _ = clean_file(path, "clean-descriptors", "shift-dates")
    assert 0x0016002B not in cleaned
    assert cleaned.TimezoneOffsetFromUTC == "+0100"
    dataset.TimezoneOffsetFromUTC = "at home"
    dataset.save_as(path)
    assert "TimezoneOffsetFromUTC" not in clean_file(path, "shift-dates")[0]
