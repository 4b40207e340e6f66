"""The private header is read as another implementation reads it, and tiles lie where a slice would."""

from __future__ import annotations

import gzip
import importlib
import struct
import warnings
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from numpy.testing import assert_allclose, assert_array_equal
from pydicom.dataset import Dataset

from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats
from hilum.files.dicom.reading import private_elements
from hilum.files.dicom.reading.private_elements import Mosaic
from hilum.files.dicom.slice_geometry import Plane
from written_dicom import write_slice

PLANE = Plane((0.0, 0.0, 0.0), (1.0, 0.0, 0.0, 0.0, 1.0, 0.0), (2.0, 3.0))
# Headers of real scans that come with nibabel, for its own tests.
SAMPLES = Path(nibabel.__file__).parent / "nicom" / "tests" / "data"


def csa(**tags: tuple[str, ...]) -> bytes:
    """A CSA2 header with these tags."""
    out = b"SV10" + b"\4\3\2\1" + struct.pack("<II", len(tags), 77)
    for name, values in tags.items():
        out += struct.pack("<64si4s3i", name.encode(), len(values), b"FD\0\0", 0, len(values), 77)
        for value in values:
            text = value.encode() + b"\0"
            out += struct.pack("<4i", len(text), len(text), 77, len(text)) + text + b"\0" * (-len(text) % 4)
    return out


def dataset(header: bytes) -> Dataset:
    made = Dataset()
    made.ImageType = ["ORIGINAL", "PRIMARY", "M", "MOSAIC"]
    made.private_block(0x0029, "SIEMENS CSA HEADER", create=True).add_new(0x10, "OB", header)
    return made


@pytest.mark.parametrize("name", ["csa2_b0.bin", "csa2_b1000.bin"])
def test_real_private_headers_are_read_as_nibabel_reads_them(name: str) -> None:
    path = SAMPLES / name
    with warnings.catch_warnings():  # nibabel calls its own reader experimental
        warnings.simplefilter("ignore")
        csareader = importlib.import_module("nibabel.nicom.csareader")
    tags = csareader.read(path.read_bytes())["tags"]
    found = private_elements.mosaic_of(
        dataset(path.read_bytes()), plane_along(tags["SliceNormalVector"]["items"]), 14, 14, "sample"
    )
    assert found.tiles == tags["NumberOfImagesInMosaic"]["items"][0]
    assert_allclose(found.normal, tags["SliceNormalVector"]["items"])


def test_the_first_tile_lies_in_the_middle_of_the_whole() -> None:
    # Four tiles of 3 x 4: the whole, 6 x 8, is centred where each tile is.
    planes = Mosaic(2, 4, (0.0, 0.0, 1.0)).planes(PLANE, 6, 8, 5.0)
    whole_centre = np.array([7 * 3.0 / 2, 5 * 2.0 / 2, 0])
    tile_centre = np.array(planes[0].position) + np.array([3 * 3.0 / 2, 2 * 2.0 / 2, 0])
    assert_allclose(tile_centre, whole_centre)
    assert [plane.position[2] for plane in planes] == [0, 5, 10, 15]


def test_slices_may_run_against_the_normal_of_the_picture() -> None:
    found = private_elements.mosaic_of(
        dataset(csa(NumberOfImagesInMosaic=("3",), SliceNormalVector=("0", "0", "-1"))), PLANE, 4, 4, "here"
    )
    assert [plane.position[2] for plane in found.planes(PLANE, 4, 4, 2.0)] == [0, -2, -4]


def test_a_mosaic_without_its_header_is_refused() -> None:
    with pytest.raises(FormatError, match="does not state its number of tiles"):
        private_elements.mosaic_of(Dataset(), PLANE, 4, 4, "here")
    with pytest.raises(GeometryError, match="in which direction its slices follow"):
        private_elements.mosaic_of(dataset(csa(NumberOfImagesInMosaic=("3",))), PLANE, 4, 4, "here")
    with pytest.raises(GeometryError, match="in which direction"):  # it contradicts the picture's own normal
        header = csa(NumberOfImagesInMosaic=("3",), SliceNormalVector=("1", "0", "0"))
        private_elements.mosaic_of(dataset(header), PLANE, 4, 4, "here")
    with pytest.raises(FormatError, match="5 tiles that do not fit 4 x 4"):
        header = csa(NumberOfImagesInMosaic=("5",), SliceNormalVector=("0", "0", "1"))
        private_elements.mosaic_of(dataset(header), PLANE, 4, 4, "here")


def test_tiles_in_schemes_without_a_reader_are_refused(tmp_path: Path) -> None:
    pixels = np.ones((4, 4), np.uint16)
    path = write_slice(tmp_path / "grid.dcm", pixels, Manufacturer="UIH", SliceThickness=1)
    grid = pydicom.dcmread(path)
    grid.private_block(0x0065, "Image Private Header", create=True)
    grid.add_new((0x0065, 0x1050), "DS", "4")
    grid.save_as(path)
    with pytest.raises(FormatError, match="United Imaging grid"):
        file_formats.read(path)
    several = write_slice(
        tmp_path / "frames.dcm", np.stack([pixels, pixels]), ImageType=["ORIGINAL", "PRIMARY", "MOSAIC"]
    )
    with pytest.raises(FormatError, match="mosaic of several frames"):
        file_formats.read(several)


@pytest.mark.parametrize("length", [20, 100, 180])
def test_a_damaged_private_header_is_refused(length: int) -> None:
    header = csa(NumberOfImagesInMosaic=("3",), SliceNormalVector=("0", "0", "1"))
    with pytest.raises(FormatError, match="private header"):
        private_elements.mosaic_of(dataset(header[:length]), PLANE, 4, 4, "here")


def test_a_real_mosaic_is_the_volume_that_nibabel_makes_of_it(tmp_path: Path) -> None:
    path = tmp_path / "mosaic.dcm"
    path.write_bytes(gzip.decompress((SAMPLES / "siemens_dwi_1000.dcm.gz").read_bytes()))
    with warnings.catch_warnings():  # nibabel calls its own reader experimental
        warnings.simplefilter("ignore")
        mosaic = importlib.import_module("nibabel.nicom.dicomwrappers").wrapper_from_file(path)
    image = file_formats.read(path)
    assert image.shape == (1, 128, 128, 48)
    # nibabel counts rows before columns, and is in LPS as DICOM is.
    assert_array_equal(image.data[0], np.swapaxes(mosaic.get_data(), 0, 1))
    corners = image.geometry.affine @ [[0, 127], [0, 127], [0, 47], [1, 1]]
    theirs = mosaic.affine @ [[0, 127], [0, 127], [0, 47], [1, 1]]
    assert_allclose(corners, np.diag([-1, -1, 1, 1]) @ theirs, atol=1e-2)


def test_a_real_mosaic_has_the_values_of_its_tiles(corpus: Path) -> None:
    path = corpus / "dicom" / "series" / "mr_siemens_mosaic" / "epi_pe_ap-00001.dcm"
    tiles = pydicom.dcmread(path).pixel_array
    image = file_formats.read(path)
    assert image.shape == (1, 72, 72, 5)
    assert (tiles[72:144, 72:144] == image.data[0, :, :, 4].T).all()  # the fifth tile of three in a row


def plane_along(normal: list[float]) -> Plane:
    """A plane with this normal."""
    third = np.array(normal)
    row = np.cross([0.0, 1.0, 0.0], third)
    row /= np.linalg.norm(row)
    return Plane((0.0, 0.0, 0.0), (*row.tolist(), *np.cross(third, row).tolist()), (1.0, 1.0))
