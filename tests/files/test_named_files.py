"""Files that image files name: read from the image's own folder and listed as read, refused from anywhere else."""

from __future__ import annotations

import gzip
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

import cv2
import h5py
import nibabel
import numpy as np
import pydicom
import pytest
import SimpleITK
import tifffile
from numpy.testing import assert_array_equal
from pydicom.dataset import Dataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, MediaStorageDirectoryStorage

from hilum.errors import FormatError
from hilum.files import file_formats
from hilum.files.file_formats import FORMATS
from hilum.files.storage import hashing
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.values import Case
from written_dicom import sequence, write_slice

VOXELS = np.arange(24, dtype="<i2").reshape(2, 3, 4)
MIF = "mrtrix image\ndim: 2,3,4\nvox: 1,1,1\nlayout: +0,+1,+2\ndatatype: int16le\nfile: {} 0\nEND\n"
MHD = "NDims = 3\nDimSize = 2 3 4\nElementType = MET_SHORT\nElementDataFile = {}\n"
NHDR = "NRRD0005\ntype: short\ndimension: 3\nsizes: 2 3 4\nendian: little\nencoding: raw\ndata file: {}\n"
OME = """<?xml version="1.0"?><OME xmlns="http://www.openmicroscopy.org/Schemas/OME/2016-06" UUID="urn:uuid:1">
<Image ID="Image:0"><Pixels ID="Pixels:0" DimensionOrder="XYZCT" Type="uint8" SizeX="4" SizeY="3" SizeZ="2" SizeC="1"
SizeT="1"><TiffData IFD="0" FirstZ="0" PlaneCount="1"><UUID FileName="image.ome.tif">urn:uuid:1</UUID></TiffData>
<TiffData IFD="0" FirstZ="1" PlaneCount="1"><UUID FileName="{}">urn:uuid:2</UUID></TiffData></Pixels></Image></OME>"""


@dataclass(frozen=True)
class Naming:
    """A format's image file that names another one.

    image:  writes the image file into a folder, naming a file as given; the path to read
    named:  writes the file that is named, to a path
    suffix: of the named file
    """

    image: Callable[[Path, str], Path]
    named: Callable[[Path], object]
    suffix: str


def header(name: str, text: str) -> Callable[[Path, str], Path]:
    """Writes a header that names the file of its voxels."""

    def written(folder: Path, named: str) -> Path:
        (folder / name).write_text(text.format(named))
        return folder / name

    return written


def raw(path: Path) -> None:
    path.write_bytes(VOXELS.tobytes())


def ome(folder: Path, named: str) -> Path:
    plane = np.full((3, 4), 1, np.uint8)
    tifffile.imwrite(folder / "image.ome.tif", plane, description=OME.format(named), metadata=None)
    return folder / "image.ome.tif"


def plane(path: Path) -> None:
    tifffile.imwrite(path, np.full((3, 4), 77, np.uint8))


def dicomdir(folder: Path, named: str) -> Path:
    made = Dataset()
    made.file_meta = FileMetaDataset()
    made.file_meta.MediaStorageSOPClassUID = MediaStorageDirectoryStorage
    made.file_meta.MediaStorageSOPInstanceUID = "1.2.3"
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.DirectoryRecordSequence = sequence(ReferencedFileID=named.split("/"))
    pydicom.dcmwrite(folder / "DICOMDIR", made, enforce_file_format=True)
    return folder / "DICOMDIR"


def slice_(path: Path) -> None:
    write_slice(path, np.ones((3, 4), np.uint16), SliceThickness=1)


NAMING = {
    "nrrd": Naming(header("image.nhdr", NHDR), raw, ".raw"),
    "metaimage": Naming(header("image.mhd", MHD), raw, ".raw"),
    "mif": Naming(header("image.mih", MIF), raw, ".dat"),
    "tiff": Naming(ome, plane, ".tif"),
    "dicom": Naming(dicomdir, slice_, ""),
}
# Formats of one file, or of two whose names differ in the suffix alone; those of MINC and clips are tested below.
# A slide of MIRAX lies in the folder of its own name, which OpenSlide reads.
OF_ONE_FILE = {"nifti", "mgh", "parrec", "picture", "numpy", "edf", "series", "minc", "video", "slide"}


def test_of_every_format_it_is_known_whether_it_names_files() -> None:
    assert set(NAMING) | OF_ONE_FILE == set(FORMATS)


@pytest.fixture(params=NAMING.values(), ids=NAMING)
def naming(request: pytest.FixtureRequest) -> Naming:
    return request.param


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
def test_a_file_in_the_images_folder_or_below_is_read_and_listed(tmp_path: Path, naming: Naming) -> None:
    for place in ("", "inside/"):
        (tmp_path / place).mkdir(exist_ok=True)
        named = tmp_path / f"{place}OTHER{naming.suffix}"
        naming.named(named)
        image = file_formats.read(naming.image(tmp_path, f"{place}OTHER{naming.suffix}"))
        assert image.data.any()
        assert image.source is not None and str(named) in image.source.paths


@pytest.mark.parametrize("name", ["nrrd", "metaimage", "mif", "tiff"])
def test_a_case_changes_when_the_voxels_beside_its_header_do(tmp_path: Path, name: str) -> None:
    naming, hashes = NAMING[name], []
    place = tmp_path / "images"
    place.mkdir()
    header = naming.image(place, f"OTHER{naming.suffix}")
    for last in (b"\0", b"\1"):
        naming.named(named := place / f"OTHER{naming.suffix}")
        named.write_bytes(named.read_bytes()[:-1] + last)
        assert file_formats.parts_of_file(header) == (header, named)
        hashes.append(hashing.content_hash(Case("a", "a", {}, {}, files=file_formats.parts_of_file(header))))
    assert hashes[0] != hashes[1]


def test_a_header_that_cannot_be_read_is_its_only_part(tmp_path: Path) -> None:
    for suffix in (".mhd", ".nhdr", ".mih", ".par", ".hdr", ".ome.tif"):
        (damaged := tmp_path / f"a{suffix}").write_bytes(b"no header")
        assert file_formats.parts_of_file(damaged) == (damaged,)


def test_the_files_of_a_case_in_a_folder_are_those_of_its_voxels_too(tmp_path: Path) -> None:
    for folder in ("images", "labels"):
        (tmp_path / folder).mkdir()
        image = SimpleITK.GetImageFromArray(np.ones((4, 4, 4), np.uint8))
        SimpleITK.WriteImage(image, str(tmp_path / folder / "c.mhd"))
    (case,) = dataset_layouts.read_dataset(tmp_path, DatasetOptions()).cases
    assert {path.relative_to(tmp_path).as_posix() for path in case.files} == {
        f"{folder}/c.{suffix}" for folder in ("images", "labels") for suffix in ("mhd", "raw")
    }


@pytest.mark.filterwarnings("ignore:Invalid value for VR CS")
@pytest.mark.parametrize("leading", ["upwards", "absolute", "link to the file", "link to its folder"])
def test_a_file_outside_is_refused(tmp_path: Path, naming: Naming, leading: str) -> None:
    folder, canary = tmp_path / "folder", tmp_path / f"CANARY{naming.suffix}"
    folder.mkdir()
    naming.named(canary)
    (folder / f"LINK{naming.suffix}").symlink_to(canary)
    (folder / "AWAY").symlink_to(tmp_path)
    names = {
        "upwards": f"../{canary.name}",
        "absolute": str(canary),
        "link to the file": f"LINK{naming.suffix}",
        "link to its folder": f"AWAY/{canary.name}",
    }
    with pytest.raises(FormatError, match=r"outside|elsewhere|out of its folder|missing|none of the files"):
        file_formats.read(naming.image(folder, names[leading])).data.sum()


def test_a_missing_plane_of_an_ome_tiff_is_not_made_up(tmp_path: Path) -> None:
    with pytest.raises(FormatError, match="missing"):
        file_formats.read(ome(tmp_path, "gone.tif"))
    plane(tmp_path / "OTHER.tif")
    path = ome(tmp_path, "OTHER.tif")
    path.write_bytes(path.read_bytes().replace(b'IFD="0" FirstZ="1"', b'IFD="7" FirstZ="1"'))
    with pytest.raises(FormatError, match="lacks 1 of its 2 planes"):
        file_formats.read(path)


@pytest.mark.parametrize("kind", ["external storage", "external link", "virtual"])
@pytest.mark.parametrize("packed", [False, True])
def test_a_minc_file_that_keeps_voxels_elsewhere_is_refused(
    tmp_path: Path, data: Path, kind: str, packed: bool
) -> None:
    canary, path = tmp_path / "canary", tmp_path / "folder" / "image.mnc"
    path.parent.mkdir()
    canary.write_bytes(bytes(range(200)) * 100)
    shutil.copy(data / "nifti" / "nib_minc2.mnc", path)
    with h5py.File(path, "r+") as file:
        place = file["minc-2.0/image/0"]
        like, attributes = place["image"], dict(place["image"].attrs)
        shape, dtype = like.shape, like.dtype
        del place["image"]
        if kind == "external storage":
            place.create_dataset("image", shape, dtype, external=[(str(canary), 0, h5py.h5f.UNLIMITED)])
        elif kind == "external link":
            place["image"] = h5py.ExternalLink(str(data / "nifti" / "nib_minc2.mnc"), "/minc-2.0/image/0/image")
        else:
            source = h5py.VirtualSource(str(data / "nifti" / "nib_minc2.mnc"), "/minc-2.0/image/0/image", shape)
            layout = h5py.VirtualLayout(shape, dtype)
            layout[:] = source
            place.create_virtual_dataset("image", layout)
        if kind != "external link":
            place["image"].attrs.update(attributes)
    if packed:
        path = gzipped(path)
    with pytest.raises(FormatError, match="keeps 'image' in another file"):
        file_formats.read(path).data.sum()


def gzipped(path: Path) -> Path:
    other = path.with_suffix(".mnc.gz")
    other.write_bytes(gzip.compress(path.read_bytes()))
    return other


def test_the_second_half_of_a_pair_may_not_be_a_link_to_elsewhere(tmp_path: Path, data: Path) -> None:
    folder, outside = tmp_path / "folder", tmp_path / "outside"
    for place in (folder, outside):
        place.mkdir()
        nibabel.save(nibabel.Nifti1Pair(VOXELS, np.eye(4)), place / "image.hdr")
        for half in (data / "nifti").rglob("*.[PR][AE][RC]"):
            shutil.copy(half, place / f"scan{half.suffix}")
    assert file_formats.read(folder / "image.hdr").source.paths == (
        str(folder / "image.hdr"),
        str(folder / "image.img"),
    )  # type: ignore[union-attr]
    assert file_formats.read(folder / "scan.PAR").data.any()
    for half, header_of in (("image.img", "image.hdr"), ("scan.REC", "scan.PAR")):
        (folder / half).unlink()
        (folder / half).symlink_to(outside / half)
        with pytest.raises(FormatError, match="elsewhere"):
            file_formats.read(folder / header_of)


def test_tables_in_the_images_folder_are_listed_too(tmp_path: Path) -> None:
    nibabel.save(nibabel.Nifti1Image(np.zeros((2, 3, 4, 2), np.int16), np.eye(4)), tmp_path / "dwi.nii")
    (tmp_path / "dwi.bval").write_text("0 1000")
    (tmp_path / "dwi.labels.csv").write_text("value,name\n1,one\n")
    (tmp_path / "dwi.json").write_text('{"Modality": "MR"}')
    image = file_formats.read(tmp_path / "dwi.nii")
    assert image.source is not None
    assert {Path(path).name for path in image.source.paths} == {"dwi.nii", "dwi.bval", "dwi.labels.csv", "dwi.json"}


@pytest.mark.parametrize(
    "text",
    [
        "#EXTM3U\n#EXT-X-TARGETDURATION:10\n#EXTINF:10,\n{}\n#EXT-X-ENDLIST\n",
        "ffconcat version 1.0\nfile {}\n",
    ],
)
@pytest.mark.parametrize("name", ["list.mp4", "list.avi"])
def test_a_list_of_clips_is_no_clip(tmp_path: Path, text: str, name: str) -> None:
    canary = tmp_path / "canary.avi"
    clip = cv2.VideoWriter(str(canary), cv2.VideoWriter_fourcc(*"MJPG"), 10, (32, 16))
    clip.write(np.full((16, 32, 3), 77, np.uint8))
    clip.release()
    assert file_formats.read(canary).frames == 1
    (tmp_path / name).write_text(text.format(canary.name))
    with pytest.raises(FormatError, match="not a clip of a known kind"):
        file_formats.read(tmp_path / name)


def test_postscript_is_not_handed_to_an_interpreter(tmp_path: Path) -> None:
    path = tmp_path / "picture.png"
    path.write_text("%!PS-Adobe-3.0 EPSF-3.0\n%%BoundingBox: 0 0 9 9\n%%EndComments\n(ran) print\nshowpage\n%%EOF\n")
    with pytest.raises(FormatError, match="kind that is not read"):
        file_formats.read(path)


def test_an_image_that_is_a_link_itself_is_read(tmp_path: Path) -> None:
    """The path is the user's: sets in a data store are made of links."""
    real = tmp_path / "real.nii.gz"
    nibabel.save(nibabel.Nifti1Image(VOXELS, np.eye(4)), real)
    (tmp_path / "linked").mkdir()
    (tmp_path / "linked" / "image.nii.gz").symlink_to(real)
    assert_array_equal(file_formats.read(tmp_path / "linked" / "image.nii.gz").data, file_formats.read(real).data)
