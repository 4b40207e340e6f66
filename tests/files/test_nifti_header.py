"""Headers of NIfTI in which there is nothing to repair, beside nibabel, which has all others."""

from __future__ import annotations

from pathlib import Path

import nibabel
import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import real_data
from hilum.files.nifti import nifti_header
from hilum.files.nifti.nifti_reading import SoundHeader
from hilum.files.storage import packed_files


def sound(path: Path) -> SoundHeader | None:
    return SoundHeader.from_file_start(packed_files.read_head(path, 544))


@given(version=st.sampled_from([1, 2]), order=st.sampled_from("<>"), turn=st.integers(0, 2**32 - 1), data=st.data())
def test_a_header_with_nothing_to_repair_says_what_nibabels_says(version, order, turn, data):
    random = np.random.default_rng(turn)
    kind = {1: nibabel.Nifti1Header, 2: nibabel.Nifti2Header}[version]
    theirs = kind(endianness=order)
    theirs.set_data_dtype(data.draw(st.sampled_from([np.uint8, np.int16, np.float32, np.float64, np.uint64])))
    theirs.set_data_shape(data.draw(st.lists(st.integers(1, 400), min_size=1, max_size=5)))
    axes = np.linalg.qr(random.normal(size=(3, 3)))[0] * random.uniform(0.2, 5, size=3)
    affine = np.vstack([np.column_stack([axes, random.normal(0, 100, size=3)]), [0, 0, 0, 1]])
    theirs.set_qform(affine, code=data.draw(st.integers(0, 5)))
    theirs.set_sform(affine, code=data.draw(st.integers(0, 5)))
    theirs.set_xyzt_units(*data.draw(st.tuples(st.sampled_from([0, 1, 2, 3]), st.sampled_from([0, 8, 16, 24]))))
    theirs["magic"] = theirs.single_magic
    ours = SoundHeader.from_file_start(theirs.binaryblock + bytes(4))
    if ours is None:  # only a turn by half a circle, whose quaternion needs care
        square = 1 - sum(float(theirs[f"quatern_{part}"]) ** 2 for part in "bcd")
        assert theirs["qform_code"] > 0 and square < 1e-6
        return
    assert (ours.get_data_shape(), ours.get_data_dtype()) == (theirs.get_data_shape(), theirs.get_data_dtype())
    assert ours.get_xyzt_units() == theirs.get_xyzt_units()
    assert_array_equal(ours.get_sform(), theirs.get_sform())
    assert_allclose(ours.get_qform(), theirs.get_qform(), atol=1e-5)
    assert ours.as_byteswapped("<").binaryblock == theirs.as_byteswapped("<").binaryblock
    assert ours.single_vox_offset == theirs.single_vox_offset


@pytest.mark.parametrize("folder", real_data.FOLDERS)
def test_real_files_have_the_grid_that_nibabels_header_states(folder):
    seen = 0
    for path in sorted(folder.glob("nifti/*.nii*")):
        if (header := sound(path)) is None:
            continue
        theirs, seen = nibabel.load(path).header, seen + 1
        ours, known = (
            nifti_header.geometry_of(header, str(path), "sform")[0],
            nifti_header.geometry_of(theirs, str(path), "sform")[0],
        )
        assert ours.equals(known, 1e-4), path.name
        assert header.get_data_dtype() == theirs.get_data_dtype()
    assert seen > 3


@pytest.mark.parametrize(
    ("field", "value"),
    [
        ("bitpix", 7),
        ("datatype", 128),  # colours
        ("qform_code", 9),
        ("vox_offset", 353),
        ("xyzt_units", 4),
        ("magic", b"ni1"),
        ("quatern_b", 2.0),
        ("pixdim", (0, 1, 1, 1, 1, 1, 1, 1)),
        ("pixdim", (1, 1, -1, 1, 1, 1, 1, 1)),
        ("dim", (3, 27307, 1, 6, 1, 1, 1, 1)),
        ("dim", (9, 4, 4, 4, 1, 1, 1, 1)),
    ],
)
def test_a_header_in_which_something_is_odd_is_nibabels(field, value):
    header = nibabel.Nifti1Header()
    header.set_data_shape((4, 5, 6))
    header["magic"], header["qform_code"], header["pixdim"][0] = b"n+1", 1, 1
    assert SoundHeader.from_file_start(header.binaryblock + bytes(4)) is not None
    assert SoundHeader.from_file_start(header.binaryblock + bytes([1, 0, 0, 0])) is None  # an extension follows
    header[field] = value
    assert SoundHeader.from_file_start(header.binaryblock + bytes(4)) is None
