"""Which object a file holds is found in its first bytes, as the DICOM library finds it."""

from __future__ import annotations

import pytest
from pydicom import dcmread

import real_data
from hilum.errors import FormatError
from hilum.files.dicom import object_identity


@pytest.mark.parametrize("folder", real_data.FOLDERS)
def test_the_uids_of_real_objects_are_those_that_the_dicom_library_reads(folder):
    paths = sorted((folder / "dicom" / "files").glob("*.dcm"))
    assert paths
    for path in paths:
        whole = dcmread(path, force=True, stop_before_pixels=True)
        asked = ("StudyInstanceUID", "SeriesInstanceUID", "SOPInstanceUID", "SOPClassUID")
        uids = tuple(whole.get(keyword, "") for keyword in asked)
        if all(uids):
            identity = object_identity.read_identity(path)
            assert (identity.study, identity.series, identity.instance, identity.sop_class) == uids, path.name
            assert identity.syntax == whole.file_meta.get("TransferSyntaxUID", identity.syntax)
        else:
            with pytest.raises(FormatError):
                object_identity.read_identity(path)


def test_a_file_that_is_no_dicom_is_refused(tmp_path):
    path = tmp_path / "picture.dcm"
    path.write_bytes(b"not an object" * 100)
    with pytest.raises(FormatError, match="not a DICOM file"):
        object_identity.read_identity(path)
