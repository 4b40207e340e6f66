"""Objects whose words have the highest byte first, written anew: DCMTK turns them round, and we turn them back."""

from __future__ import annotations

import io
import shutil
import subprocess

import numpy as np
import pydicom
import pytest
from pydicom.dataset import Dataset

from dicom_objects import picture
from hilum.errors import FormatError
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import pixel_decoding, single_frame

with_dcmtk = pytest.mark.skipif(shutil.which("dcmconv") is None, reason="DCMTK is not installed")


def of_many_words() -> Dataset:
    """An image with words of every length, in a sequence too, and with bytes that no order touches."""
    words = np.arange(12, dtype=np.uint16).reshape(3, 4) * 1001
    table = Dataset()
    table.LUTDescriptor, table.ModalityLUTType = [4, 0, 16], "US"
    table.add_new("LUTData", "OW", np.array([1, 258, 772, 65000], "<u2").tobytes())
    made = picture(words, ModalityLUTSequence=[table], SOPInstanceUID="1.2.3", FrameIncrementPointer=0x00181063)
    made.add_new("FloatPixelData", "OF", np.array([1.5, -2.25], "<f4").tobytes())
    made.add_new("DoubleFloatPixelData", "OD", np.array([1e300, -0.5], "<f8").tobytes())
    made.add_new("TrackPointIndexList", "OL", np.array([1, 2**31], "<u4").tobytes())
    made.add_new("ExtendedOffsetTable", "OV", np.array([3, 2**40], "<u8").tobytes())
    made.add_new("EncapsulatedDocument", "OB", b"%PDF")
    made.add_new("ImagePositionPatient", "DS", [1, 2.5, -3])
    made.add_new("RecommendedDisplayFrameRateInFloat", "FL", 12.5)
    made.add_new("TagAngleSecondAxis", "SS", -7)
    return made


@with_dcmtk
def test_an_object_that_was_turned_round_and_back_has_every_value_that_it_had(tmp_path):
    source = of_many_words()
    plain, big = tmp_path / "plain.dcm", tmp_path / "big.dcm"
    source.save_as(plain, enforce_file_format=True)
    subprocess.run(["dcmconv", "+tb", plain, big], check=True)
    assert pydicom.dcmread(big).original_encoding == (False, False)
    assert pydicom.dcmread(big).PixelData != source.PixelData
    found = pydicom.dcmread(io.BytesIO(single_frame.native_object(big)))
    assert found == pydicom.dcmread(plain)
    assert found.file_meta.TransferSyntaxUID == pydicom.uid.ExplicitVRLittleEndian


@with_dcmtk
def test_what_is_written_anew_of_a_real_object_is_what_dcmtk_writes(data, tmp_path):
    path = data / "dicom/files/pydicom_ExplVR_BigEnd.dcm"
    subprocess.run(["dcmconv", "+te", path, tmp_path / "theirs.dcm"], check=True)
    ours, theirs = (
        pydicom.dcmread(io.BytesIO(single_frame.native_object(path))),
        pydicom.dcmread(tmp_path / "theirs.dcm"),
    )
    tags = {tag for tag in ours.keys() | theirs.keys() if tag.element != 0}  # lengths of groups, which are retired
    assert len(tags) > 30 and [tag for tag in tags if ours.get(tag) != theirs.get(tag)] == []


@pytest.mark.parametrize("syntax", [pydicom.uid.RLELossless, pydicom.uid.ExplicitVRBigEndian])
@pytest.mark.parametrize("kind", [np.uint16, np.int16])
def test_stored_bits_above_the_lowest_lie_where_the_header_says(tmp_path, syntax, kind):
    truth = np.array([[0, 100, 200], [-2048 if kind == np.int16 else 4095, 7, 2047]], kind)
    made, path = picture(truth << 4, SOPInstanceUID="1.2.3"), tmp_path / "a.dcm"
    if syntax == pydicom.uid.RLELossless:
        made.compress(syntax, encoding_plugin="pydicom", generate_instance_uid=False)
    else:
        made.file_meta.TransferSyntaxUID, made.PixelData = syntax, (truth << 4).astype(">i2").tobytes()
    made.BitsStored, made.HighBit = 12, 15
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    assert single_frame.native_frame(header_reading.read_header(path), 0) == (truth << 4).tobytes()
    assert np.array_equal(
        pixel_decoding.decode_frames(pydicom.dcmread(io.BytesIO(single_frame.native_object(path))), "")[0], truth
    )


def test_an_object_that_is_too_large_to_be_written_anew_is_refused(tmp_path, monkeypatch):
    of_many_words().save_as(tmp_path / "plain.dcm", enforce_file_format=True)
    monkeypatch.setattr(single_frame, "MOST_DECODED", 100)
    with pytest.raises(FormatError, match=r"plain\.dcm: is too large"):
        single_frame.native_object(tmp_path / "plain.dcm")
