"""Pseudonyms of patients: the same person is known again, and nobody is found by trying numbers."""

from __future__ import annotations

import hashlib
import hmac
import shutil
import stat
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.scoring import data_record

# Without labels a folder is read for its images alone.
IMAGES = DatasetOptions(references=False)


@pytest.fixture
def installation(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The configuration folder of an installation that has no key yet."""
    monkeypatch.delenv("HILUM_PATIENT_KEY")
    monkeypatch.setenv("XDG_CONFIG_HOME", str(tmp_path / "config"))
    monkeypatch.setenv("HOME", str(tmp_path))
    hashing._load_key.cache_clear()
    return hashing.key_file().parent


@given(identity=st.text(), other=st.text())
def test_one_person_has_one_pseudonym_and_two_have_two(identity, other):
    assert (hashing.make_pseudonym(identity) == hashing.make_pseudonym(other)) == (identity == other)


def test_a_pseudonym_is_the_hmac_of_the_identity_by_the_key(monkeypatch):
    monkeypatch.setenv("HILUM_PATIENT_KEY", "Jefe")
    # RFC 4231, test case 2, of which a pseudonym is the first 64 bits.
    assert hashing.make_pseudonym("what do ya want for nothing?") == "5bdcc146bf60754e"


def test_another_key_makes_other_pseudonyms_and_has_another_id(monkeypatch):
    first = hashing.make_pseudonym("1234567"), hashing.patient_key_id()
    monkeypatch.setenv("HILUM_PATIENT_KEY", "another")
    assert not {*first} & {hashing.make_pseudonym("1234567"), hashing.patient_key_id()}
    assert "another" not in hashing.patient_key_id()


def test_no_plain_hash_of_the_number_is_its_pseudonym(installation):
    plain = {hashlib.sha256(text.encode()).hexdigest()[:16] for text in ("1234567", "\0" + "1234567")}
    assert hashing.make_pseudonym("1234567") not in plain


def test_an_installation_makes_its_key_once_for_its_owner_alone(installation):
    with ThreadPoolExecutor(8) as pool:
        assert len(set(pool.map(hashing.make_pseudonym, ["1234567"] * 8))) == 1
    [key] = installation.iterdir()
    assert stat.S_IMODE(key.stat().st_mode) == 0o600
    secret = bytes.fromhex(key.read_text())
    assert len(secret) == 32
    hashing._load_key.cache_clear()
    assert hashing.make_pseudonym("1234567") == hmac.digest(secret, b"1234567", "sha256").hex()[:16]


def test_a_damaged_key_is_refused_and_no_other_is_made(installation):
    hashing.make_pseudonym("1234567")
    [key] = installation.iterdir()
    key.write_text("00ff")
    hashing._load_key.cache_clear()
    with pytest.raises(IntegrityError, match="is not a key of this installation"):
        hashing.make_pseudonym("1234567")
    assert key.read_text() == "00ff"


def test_a_folder_that_cannot_hold_the_key_names_the_variable(installation):
    installation.parent.mkdir(parents=True, exist_ok=True)
    installation.write_text("no folder")
    with pytest.raises(UsageError, match="Set HILUM_PATIENT_KEY"):
        hashing.make_pseudonym("1234567")


@pytest.fixture
def series(data: Path, tmp_path: Path) -> Path:
    """Two series of DICOM."""
    for name in ("ct_23x38x3_with_seg", "mr_hippocampus_001"):
        shutil.copytree(data / "dicom" / "series" / name, tmp_path / "dicom" / name)
    return tmp_path / "dicom"


def test_a_run_knows_its_cases_again_under_another_key(series, tmp_path, monkeypatch):
    first = dataset_layouts.read_dataset(series, IMAGES)
    (tmp_path / "run").mkdir()
    data_record.write_data_record(tmp_path / "run", first, {})
    assert hashing.patient_key_id() in (tmp_path / "run" / "data.json").read_text()
    monkeypatch.setenv("HILUM_PATIENT_KEY", "another")
    now = dataset_layouts.read_dataset(series, IMAGES)
    assert not {case.id for case in now} & {case.id for case in first}
    again = data_record.name_as_in_run(now, data_record.read_data_record(tmp_path / "run"))
    assert sorted(case.id for case in again) == sorted(case.id for case in first)
    assert {case.id: case.files for case in again} == {case.id: case.files for case in first}


def test_the_record_of_a_run_holds_an_id_of_the_key_and_never_the_key(series, tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_PATIENT_KEY", "a key of this clinic")
    data_record.write_data_record(tmp_path, dataset_layouts.read_dataset(series, IMAGES), {})
    written = (tmp_path / "data.json").read_text()
    assert hashing.patient_key_id() in written and "a key of this clinic" not in written


def test_a_record_of_other_files_names_no_key(tmp_path, data):
    folder = data / "dicom" / "series" / "ct_23x38x3_with_seg"
    dataset = dataset_layouts.read_dataset(next(folder.glob("*.dcm")), IMAGES)
    data_record.write_data_record(tmp_path, dataset, {})
    assert "patient_key" not in (tmp_path / "data.json").read_text()
