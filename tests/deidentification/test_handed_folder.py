"""The folder that may be handed on, the private one, what is refused, and what ends a run early."""

from __future__ import annotations

import json
import resource
import shutil
from pathlib import Path

import numpy as np
import pydicom
import pytest

import hilum
from hilum.deidentification import dicom_objects, keyed_names
from hilum.errors import ResourceError, UsageError
from hilum.files.storage import csv_text
from written_dicom import write_slice

KEY, OTHER_KEY = "0f" * 32, "f0" * 32


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(keyed_names.VARIABLE, KEY)


@pytest.fixture
def images(tmp_path):
    """Two slices of a patient, and one of another."""
    folder = tmp_path / "in"
    (folder / "deeper").mkdir(parents=True)
    for n, (name, patient) in enumerate([("a.dcm", "11"), ("b.dcm", "11"), ("deeper/c.dcm", "22")]):
        pixels = np.full((8, 8), n, dtype=np.int16)
        write_slice(
            folder / name, pixels, PatientID=patient, StudyInstanceUID=f"1.2.{patient}", SeriesInstanceUID="1.2.3"
        )
    return folder


def read_report(out: Path) -> dict:
    return json.loads(out.with_name(f"{out.name}.private").joinpath("report.json").read_text())


def test_objects_lie_by_new_names_and_the_report_beside_them(tmp_path, images):
    out = tmp_path / "out"
    result = hilum.deidentify(images, out=out, table=True)
    record = read_report(out)
    assert (record["schema"], record["version"]) == ("hilum.deidentified", 1)
    assert [row["source"] for row in record["rows"]] == ["a.dcm", "b.dcm", "deeper/c.dcm"]
    assert sorted(path.relative_to(out).as_posix() for path in out.rglob("*.dcm")) == sorted(
        row["output"] for row in record["rows"]
    )
    for row in record["rows"]:
        written = pydicom.dcmread(out / row["output"])
        uids = (written.StudyInstanceUID, written.SeriesInstanceUID, f"{written.SOPInstanceUID}.dcm")
        assert row["output"].split("/") == [written.PatientID, *uids]
        assert (row["refused"], row["review"], row["text"], row["actions"]["mapped"] >= 3) == (None, None, 0, True)
    assert result.private.stat().st_mode & 0o777 == 0o700
    assert {path.name for path in result.private.iterdir()} == {"report.json", "table.csv"}
    way_back = csv_text.read_text_table(result.private / "table.csv").to_dict("records")
    assert {(row["original"], row["new"]) for row in way_back if row["kind"] == "patient"} == {
        (number, keyed_names.read_names().patient_of_number(number, "")) for number in ("11", "22")
    }
    assert result.failures == ()


def test_a_second_run_gives_the_same_and_another_key_or_other_options_are_refused(tmp_path, images, monkeypatch):
    out = tmp_path / "out"
    hilum.deidentify(images, out=out, table=True)
    before = {path: path.read_bytes() for path in out.rglob("*.dcm")}
    hilum.deidentify(images, out=out, table=True)
    assert {path: path.read_bytes() for path in out.rglob("*.dcm")} == before
    with pytest.raises(UsageError, match="other options"):
        hilum.deidentify(images, out=out, options=["retain-uids"])
    monkeypatch.setenv(keyed_names.VARIABLE, OTHER_KEY)
    with pytest.raises(UsageError, match="another key"):
        hilum.deidentify(images, out=out)
    (out.with_name("out.private") / "report.json").unlink()
    shutil.rmtree(out)
    with pytest.raises(UsageError, match=r"table.csv.*another key"):
        hilum.deidentify(images, out=out)


def test_folders_within_each_other_and_folders_of_others_are_refused(tmp_path, images):
    for out in (images / "out", images, tmp_path):
        with pytest.raises(UsageError, match="lie"):
            hilum.deidentify(images, out=out)
    with pytest.raises(UsageError, match="not from here"):
        (tmp_path / "full").mkdir()
        (tmp_path / "full" / "note.txt").write_text("mine")
        hilum.deidentify(images, out=tmp_path / "full")
    with pytest.raises(UsageError, match="no such file"):
        hilum.deidentify(tmp_path / "nowhere", out=tmp_path / "out")
    with pytest.raises(UsageError, match="no file"):
        (tmp_path / "empty").mkdir()
        hilum.deidentify(tmp_path / "empty", out=tmp_path / "out")


def test_documents_directories_and_cut_files_are_refused_and_stop_no_other(tmp_path, images, data, cli):
    document = pydicom.dcmread(images / "a.dcm")
    document.SOPClassUID, document.EncapsulatedDocument = "1.2.840.10008.5.1.4.1.1.104.1", b"%PDF-1.7"
    document.SOPInstanceUID = document.file_meta.MediaStorageSOPInstanceUID = "1.2.9"
    document.save_as(images / "pdf.dcm")
    whole = (images / "b.dcm").read_bytes()
    for name, length in (("cut_pixels.dcm", -40), ("cut_header.dcm", 500)):
        (images / name).write_bytes(whole[:length])
    shutil.copy(data / "dicom" / "broken" / "pydicom_DICOMDIR_nooffset.dcm", images / "DICOMDIR")
    (images / "notes.txt").write_text("of Ms Quast")
    done = cli("deidentify", images, "--out", tmp_path / "out")
    assert done.code == 1
    assert "5 failed" in done.last
    reasons = {row["source"]: row["refused"] for row in read_report(tmp_path / "out")["rows"] if row["refused"]}
    words = {"pdf.dcm": "document", "cut_pixels.dcm": "cut short", "cut_header.dcm": "", "DICOMDIR": "DICOMDIR"}
    assert reasons.keys() == {*words, "notes.txt"}
    assert [name for name, word in words.items() if word not in reasons[name]] == []
    assert len(list((tmp_path / "out").rglob("*.*"))) - len(list((tmp_path / "out").rglob("2.25*/"))) >= 3


def test_a_full_disk_ends_the_run_with_whole_files(tmp_path, images):
    (write := images / "big.dcm").write_bytes(b"")
    write_slice(write, np.zeros((256, 256), dtype=np.int16), PatientID="33")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (1 << 15, hard))
    try:
        with pytest.raises(ResourceError, match="Free some space"):
            hilum.deidentify(images, out=tmp_path / "out")
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
    for path in (tmp_path / "out").rglob("*.dcm"):
        assert len(pydicom.dcmread(path).PixelData) == 128
    assert not read_report(tmp_path / "out")["complete"]


def test_ctrl_c_leaves_whole_files_and_a_report(tmp_path, images, monkeypatch, cli):
    write, done = dicom_objects.write_clean, []

    def write_one(*given):
        if done:
            raise KeyboardInterrupt
        done.append(given)
        return write(*given)

    monkeypatch.setattr(dicom_objects, "write_clean", write_one)
    assert cli("deidentify", images, "--out", tmp_path / "out").code == 130
    record = read_report(tmp_path / "out")
    assert (record["complete"], [row["source"] for row in record["rows"]]) == (False, ["a.dcm"])
    assert [path.name for path in (tmp_path / "out").rglob("*.dcm")] == [Path(record["rows"][0]["output"]).name]


def test_two_objects_that_share_a_uid_are_both_handed_on(tmp_path, images):
    shutil.copy(images / "a.dcm", images / "again.dcm")
    other = pydicom.dcmread(images / "a.dcm")
    other.PixelData = bytes(127) + b"\1"
    other.save_as(images / "other.dcm")
    rows = {row.source: row.output for row in hilum.deidentify(images, out=tmp_path / "out").rows}
    assert rows["a.dcm"] == rows["again.dcm"]
    assert rows["other.dcm"] == rows["a.dcm"].replace(".dcm", "_2.dcm")
