"""Plain headers are read without pydicom, and pydicom is the judge of what they say."""

from __future__ import annotations

import struct
import subprocess
import sys
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pydicom
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

import real_data
from hilum.files.dicom import elements as dicom_elements
from hilum.files.dicom import header_reading, tags
from hilum.files.dicom.elements import PIXEL_ELEMENTS, REPRESENTATIONS, TAGS, Elements
from matrices import rarely
from written_dicom import sequence, write_slice


def plain_value(value: Any) -> Any:
    """A value as it is compared: text without the spaces that fill it up, numbers as numbers."""
    if value is None or isinstance(value, str | pydicom.valuerep.PersonName):
        return str(value or "").strip()
    if isinstance(value, pydicom.Sequence):
        return len(value)
    if hasattr(value, "__iter__") and not isinstance(value, bytes):
        return [plain_value(one) for one in value]
    return str(float(value)) if isinstance(value, float) else value


def differences(elements: Elements, judge: pydicom.Dataset) -> list[str]:
    """The tags at which the two data sets say different things."""
    own = {tag for tag in elements.keys() if tag >> 16 != 2 and tag not in PIXEL_ELEMENTS}  # noqa: SIM118
    different = own ^ set(judge.keys())
    for tag in own - different:
        try:
            stated = judge[tag].value
        except tags.pydicom_errors():
            with pytest.raises(tags.pydicom_errors()):
                elements[tag]
            continue
        if not np.array_equal(plain_value(stated), plain_value(elements[tag].value)):
            different.add(tag)
    return [f"{tag:08X}" for tag in sorted(different)]


def test_the_table_of_attributes_is_that_of_the_standard() -> None:
    for keyword, tag in TAGS.items():
        assert pydicom.datadict.tag_for_keyword(keyword) == tag
        ambiguous = {"US or SS": "XS", "OB or OW": "OW"}
        stated = pydicom.datadict.dictionary_VR(tag)
        assert REPRESENTATIONS[tag].decode() == ambiguous.get(stated, stated)


@pytest.mark.parametrize(
    ("folder", "every", "fewest"),
    [
        (real_data.SHIPPED, 8, 20),
        rarely((real_data.SHIPPED, 1, 150)),
        pytest.param(real_data.CORPUS, 8, 20, marks=pytest.mark.corpus),
        rarely(pytest.param(real_data.CORPUS, 1, 150, marks=pytest.mark.corpus)),
    ],
)
@pytest.mark.filterwarnings("ignore")
def test_every_plain_header_says_what_pydicom_says(folder: Path, every: int, fewest: int) -> None:
    own = Path(pydicom.__file__).parent / "data" / "test_files"
    plain = 0
    for path in [*sorted((folder / "dicom").rglob("*.*")), *sorted(own.glob("*.dcm"))][::every]:
        if not path.is_file():
            continue
        with path.open("rb") as file:
            found = dicom_elements.plain_elements(file)
            if found is None:
                continue
            elements, offset, length, tag = found
            file.seek(0)
            judge = pydicom.dcmread(file, stop_before_pixels=True)
            raw = path.read_bytes()[file.tell() :]
        assert differences(elements, judge) == [], path
        head = 8 if judge.original_encoding[0] else 12
        assert struct.unpack("<HH", raw[:4]) == (tag >> 16, tag & 0xFFFF)
        assert struct.unpack("<I", raw[head - 4 : head])[0] == length
        assert path.stat().st_size - len(raw) + head == offset
        plain += 1
    assert plain > fewest


@pytest.mark.filterwarnings("ignore")
@settings(max_examples=200)
@given(st.integers(128, 5000), st.sampled_from((0, 1, 2, 0x20, 0x53, 0x5C, 0x7F, 0xFF)), st.booleans())
def test_a_damaged_header_is_left_to_pydicom_or_says_the_same(at: int, byte: int, nested: bool) -> None:
    content = bytearray(NESTED if nested else FLAT)
    content[128 + (at - 128) % (len(content) - 128)] = byte
    found = dicom_elements.plain_elements(BytesIO(content))
    if found is not None:
        assert differences(found[0], pydicom.dcmread(BytesIO(content), stop_before_pixels=True)) == []


def test_a_sequence_of_undefined_length_is_passed_over_whatever_it_holds(tmp_path: Path) -> None:
    path = tmp_path / "nested.dcm"
    path.write_bytes(NESTED)
    dataset = header_reading.read_header(path).dataset
    assert isinstance(dataset, Elements)
    assert dataset["RequestAttributesSequence"].value[0].CodeValue == "deep"
    assert dataset["Rows"].value == 4


def test_a_series_is_read_without_importing_pydicom(tmp_path: Path) -> None:
    for n in range(3):
        write_slice(tmp_path / f"{n}.dcm", np.full((4, 6), n, np.uint16), position=(0, 0, n), PatientName="A^B")
    code = "import hilum, sys; image = hilum.read(sys.argv[1]); image.data.sum(); sys.exit('pydicom' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code, str(tmp_path)], check=False).returncode == 0


def test_a_series_becomes_nifti_without_importing_pydicom_nibabel_or_what_only_other_formats_need(
    tmp_path: Path,
) -> None:
    (tmp_path / "series").mkdir()
    for n in range(3):
        write_slice(tmp_path / "series" / f"{n}.dcm", np.full((4, 6), n, np.uint16), position=(0, 0, n))
    code = (
        "import hilum, sys; hilum.convert(sys.argv[1], sys.argv[2]); "
        "print(*{'pydicom', 'nibabel', 'torch', 'pandas', 'scipy'} & set(sys.modules))"
    )
    words = [sys.executable, "-c", code, str(tmp_path / "series"), str(tmp_path / "volume.nii")]
    assert subprocess.run(words, check=True, capture_output=True, text=True).stdout == "\n"


def _written(*, nested: bool) -> bytes:
    path = BytesIO()
    dataset = pydicom.Dataset()
    dataset.SOPClassUID, dataset.Modality, dataset.PatientName = pydicom.uid.CTImageStorage, "CT", "A^B"
    dataset.ImagePositionPatient, dataset.InstanceNumber = [0, -1.5, 2], 3
    dataset.Rows, dataset.Columns, dataset.BitsAllocated, dataset.PixelData = 4, 2, 16, bytes(16)
    if nested:
        inner = sequence(CodeValue="deep")
        dataset.RequestAttributesSequence = sequence(CodeValue="deep", ConceptCodeSequence=inner)
        for one in (dataset["RequestAttributesSequence"], dataset.RequestAttributesSequence[0]["ConceptCodeSequence"]):
            one.is_undefined_length = True
            one.value[0].is_undefined_length_sequence_item = True
    dataset.file_meta = pydicom.dataset.FileMetaDataset()
    dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    dataset.SOPInstanceUID = "1.2.3"
    pydicom.dcmwrite(path, dataset, enforce_file_format=True)
    return path.getvalue()


FLAT, NESTED = _written(nested=False), _written(nested=True)
