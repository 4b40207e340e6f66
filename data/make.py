"""Choose the data that the repository ships, and check that they are what `files.csv` says.

    python data/make.py                             # check: every file has its row, every hash holds
    python data/make.py --corpus ../shared/data     # choose and copy anew from the larger corpus, and write `files.csv`

What is chosen is stated here, a function a set. Images, labels and objects are copied as they are, but for two MedMNIST
files, of which some rows are kept. Tables and lists lose the rows of what is left out. LICENSE and README.md are
written by hand.
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import json
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterable, Iterator
from pathlib import Path

import nibabel
import numpy as np
import pydicom

HERE = Path(__file__).parent
LIST = HERE / "files.csv"
# Beside the sets, and of our own making.
UNLISTED = {"README.md", "files.csv", "make.py"}
LARGEST = 12_000_000  # bytes, all together

VOLUMES = 60
# Rows of the parts of a MedMNIST file.
PNEUMONIA_ROWS = {"train": 300, "val": 60, "test": 100}
RETINA_ROWS = {"train": 60, "val": 12, "test": 12}
RADIOGRAPHS = (
    "NORMAL/NORMAL2-IM-0772-*",
    "NORMAL/NORMAL2-IM-0753-*",
    "PNEUMONIA/person1177_*",
    "PNEUMONIA/person445_*",
)
SMEARS = 14
SMEARS_WITH_AN_EMPTY_BOX = ("BloodImage_00338", "BloodImage_00343")
NUCLEI = {"fluorescence": 7, "he_stain": 2}
NUCLEI_READ_BY_NAME = "01d44a26f6680c42"
TISSUE_TILES = 5
HEARTS = ("SC-HF-NI-31", "SC-HYP-06")
SERIES = (
    "ct_23x38x3_with_seg",
    "mr_hitachi_oblique",
    "mr_pmod_non_isotropic_rescale",
    "sc_rgb_volume_j2k",
)
# Single objects. Those of pydicom and nibabel are left to their wheels, which hold them.
OBJECTS = (
    "files/dcmqi_legacy_enhanced_ct_23x38x3.dcm",
    "files/dcmqi_seg_23x38x3.dcm",
    "files/dcmqi_seg_liver.dcm",
    "files/dcmqi_seg_partial_overlaps.dcm",
    "files/dcmqi_sr_example_seg.dcm",
    "files/dcmqi_sr_example_sr.dcm",
    "files/fodicom_jpeg_baseline_ybr.dcm",
    "files/fodicom_pt_jpeg_lossless.dcm",
    "files/fodicom_us_jpegls.dcm",
    "files/fodicom_xc_jpeg_with_icon.dcm",
    "files/highdicom_dx_image.dcm",
    "files/highdicom_seg_image_cr_binary.dcm",
    "files/highdicom_seg_image_ct_binary.dcm",
    "files/highdicom_seg_image_ct_binary_overlap.dcm",
    "files/highdicom_seg_image_ct_true_fractional.dcm",
    "files/highdicom_seg_image_sm_control_labelmap.dcm",
    "files/highdicom_seg_image_sm_dots_tiled_full.dcm",
    "files/highdicom_sm_annotations.dcm",
    "files/highdicom_sm_image.dcm",
    "files/highdicom_sm_image_jpegls.dcm",
    "files/highdicom_sr_document.dcm",
    "files/pydicomdata_JLSL_08_07_0_1F.dcm",
    "files/pydicomdata_OBXXXX1A_rle.dcm",
    "files/pydicomdata_US1_J2KI.dcm",
    "files/pydicomdata_emri_small.dcm",
    "files/pydicomdata_emri_small_jpeg_2k_lossless.dcm",
    "files/pydicomdata_liver_deflate.dcm",
    "files/pydicomdata_liver_j2k.dcm",
    "files/pydicomdata_liver_nonbyte_aligned_rle.dcm",
    "files/pydicomdata_parametric_map_float.dcm",
    "files/rtutils_rtstruct_phantom.dcm",
    "files/tcia_pet_1.dcm",
    "broken/fodicom_mr_no_pixels.dcm",
    "broken/fodicom_private_class_tiny.dcm",
    "broken/fodicom_unreadable_GH340.dcm",
    "broken/pydicomdata_emri_j2k_too_short.dcm",
    "broken/rtutils_rtstruct_invalid_reference.dcm",
)
VOLUME_FILES = (
    "niivue_complex64.nii.gz",
    "niivue_draw_AIL.nii.gz",
    "niivue_hippo_mask_LAS.nii.gz",
    "niivue_low_res_7x5x3.nii.gz",
    "niivue_mha.mha",
    "niivue_minimal_no_form.nii.gz",
    "niivue_ras.hdr",
    "niivue_ras.img",
    "niivue_space_ASR.nii.gz",
    "niivue_space_LPS.nii.gz",
    "niivue_space_RAS.nii.gz",
    "niivue_torso_labels.nii.gz",
)
PAIRS = (
    "brain2d_ants/*.jpg",
    "brain2d_ants/*_tissue3.png",
    "ct2d_head_elastix/CT_2D_head_fixed.mha",
    "ct2d_head_elastix/CT_2D_head_moving.mha",
    "prostate_mr_us/case000000_*",
)
BUNDLES_OF = "MONAI Consortium"
# Of NVIDIA, with a licence of its own that was not seen.
BUNDLES_LEFT_OUT = ("maisi_ct_generative",)

# Volumes of the first set that are also a series of DICOM, as a scanner's archive would send them.
AS_SERIES = ("hippocampus_001", "hippocampus_003")
CONVERTER = "dcm2niix"

# A file of a set: its path inside the set's folder, and its content.
File = tuple[str, bytes]


def main() -> int:
    """Check what is here, or choose it anew; 1 with a line a fault."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--corpus", type=Path, help="the larger corpus to choose from")
    corpus: Path | None = parser.parse_args().corpus
    if corpus is not None:
        make(corpus)
    faults = find_faults(HERE)
    sys.stdout.writelines(f"{fault}\n" for fault in faults)
    size = sum(path.stat().st_size for path in HERE.rglob("*") if path.is_file())
    sys.stdout.write(f"{len(read_list(HERE))} files in {len(SETS)} sets, {size:,} bytes\n")
    return int(bool(faults))


def make(corpus: Path) -> None:
    """Write the files of all sets and the list of them; LICENSE and README.md stay as they are."""
    for name, choose in SETS.items():
        folder = HERE / name
        for path in list_files(folder):
            if path.name != "LICENSE":
                path.unlink()
        for relative, content in choose(corpus / name):
            target = folder / relative
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_bytes(content)
    rows = [(path.relative_to(HERE).as_posix(), name) for name in SETS for path in list_files(HERE / name)]
    with LIST.open("w", newline="", encoding="utf-8") as file:
        writer = csv.writer(file, lineterminator="\n")
        writer.writerow(["path", "set", "sha256"])
        writer.writerows([path, name, hash_of(HERE / path)] for path, name in rows)


def find_faults(folder: Path) -> list[str]:
    """What does not agree between a folder of shipped data and its list, a sentence each."""
    rows = read_list(folder)
    faults = []
    for path in list_files(folder):
        name = path.relative_to(folder).as_posix()
        if name not in rows and name not in UNLISTED:
            faults.append(f"{name} has no row in files.csv")
    for name, row in rows.items():
        path = folder / name
        if not path.is_file():
            faults.append(f"{name} has a row in files.csv, and is not there")
        elif hash_of(path) != row["sha256"]:
            faults.append(f"{name} is another file than files.csv says")
        elif not name.startswith(f"{row['set']}/"):
            faults.append(f"{name} does not lie in its set, {row['set']}")
    for name in sorted({row["set"] for row in rows.values()}):
        if f"{name}/LICENSE" not in rows:
            faults.append(f"{name} has no LICENSE")
    size = sum(path.stat().st_size for path in list_files(folder))
    if size > LARGEST:
        faults.append(f"{size:,} bytes are more than {LARGEST:,}")
    return faults


def read_list(folder: Path) -> dict[str, dict[str, str]]:
    """The rows of `files.csv` by path."""
    with (folder / "files.csv").open(newline="", encoding="utf-8") as file:
        return {row["path"]: row for row in csv.DictReader(file)}


def list_files(folder: Path) -> list[Path]:
    return sorted(path for path in folder.rglob("*") if path.is_file() and "__pycache__" not in path.parts)


def hash_of(path: Path) -> str:
    return hashlib.sha256(path.read_bytes()).hexdigest()


# The sets


def choose_hippocampi(corpus: Path) -> Iterator[File]:
    """The first sixty volumes by name, each with its labels, and what the labels' values mean."""
    names = sorted(path.name for path in (corpus / "images").iterdir())[:VOLUMES]
    yield from copies(corpus, [f"{part}/{name}" for part in ("images", "labels") for name in names])
    yield "classes.csv", b"value,name\n1,anterior\n2,posterior\n"


def choose_medmnist(corpus: Path) -> Iterator[File]:
    """All of AdrenalMNIST3D, and the first rows of each part of the other two.

    Of PneumoniaMNIST also the pictures that training and validation share.
    """
    yield from copies(corpus, ["adrenalmnist3d.npz"])
    with np.load(corpus / "pneumoniamnist.npz") as arrays:
        pictures = {part: [row.tobytes() for row in arrays[f"{part}_images"]] for part in ("train", "val")}
        shared = set(pictures["train"]) & set(pictures["val"])
        rows = {part: list(range(count)) for part, count in PNEUMONIA_ROWS.items()}
        for part, whole in pictures.items():
            later = range(PNEUMONIA_ROWS[part], len(whole))
            rows[part] += [number for number in later if whole[number] in shared]
        yield "pneumoniamnist.npz", pack_rows(arrays, rows)
    with np.load(corpus / "retinamnist.npz") as arrays:
        yield "retinamnist.npz", pack_rows(arrays, {part: list(range(count)) for part, count in RETINA_ROWS.items()})


def pack_rows(arrays: np.lib.npyio.NpzFile, rows: dict[str, list[int]]) -> bytes:
    """A file of the same arrays, with these rows of each part."""
    packed = io.BytesIO()
    np.savez_compressed(packed, **{name: arrays[name][rows[name.partition("_")[0]]] for name in arrays.files})
    return packed.getvalue()


def choose_radiographs(corpus: Path) -> Iterator[File]:
    """Whole patients with the smallest files: two without pneumonia, two with."""
    yield from copies(corpus, matches(corpus, RADIOGRAPHS))


def choose_smears(corpus: Path) -> Iterator[File]:
    """The first fourteen by name, and the two with a box of no area; the lists of parts without the others."""
    names = [path.stem for path in sorted((corpus / "JPEGImages").iterdir())[:SMEARS]]
    names += SMEARS_WITH_AN_EMPTY_BOX
    yield from copies(corpus, [f"JPEGImages/{name}.jpg" for name in names])
    yield from copies(corpus, [f"Annotations/{name}.xml" for name in names])
    for listed in sorted((corpus / "ImageSets" / "Main").iterdir()):
        lines = [line for line in listed.read_text().split() if line in names]
        yield f"ImageSets/Main/{listed.name}", "".join(f"{line}\n" for line in lines).encode()


def choose_nuclei(corpus: Path) -> Iterator[File]:
    """The smallest files of two kinds of picture, and one that a test reads by name."""
    names = [NUCLEI_READ_BY_NAME]
    for kind, count in NUCLEI.items():
        of_kind = [row["name"] for row in read_table(corpus / "index.csv") if row["kind"] == kind]
        names += [name for name in by_size(corpus, of_kind) if name != NUCLEI_READ_BY_NAME][:count]
    yield from choose_instances(corpus, names)


def choose_tissue(corpus: Path) -> Iterator[File]:
    """The five smallest tiles."""
    names = by_size(corpus, [row["name"] for row in read_table(corpus / "index.csv")])
    yield from choose_instances(corpus, names[:TISSUE_TILES])


def choose_instances(corpus: Path, names: list[str]) -> Iterator[File]:
    yield from copies(corpus, [f"images/{name}.png" for name in names])
    yield from copies(corpus, [f"labels/{name}.tif" for name in names])
    yield "index.csv", rows_of(corpus / "index.csv", "name", names)


def by_size(corpus: Path, names: Iterable[str]) -> list[str]:
    """Pictures with label maps, the smallest first."""

    def size(name: str) -> int:
        return sum((corpus / path).stat().st_size for path in (f"images/{name}.png", f"labels/{name}.tif"))

    return sorted(names, key=lambda name: (size(name), name))


def choose_hearts(corpus: Path) -> Iterator[File]:
    """Of two of the four groups the patient with the smallest files."""
    patterns = [f"{part}/{patient}-*" for part in ("images", "masks") for patient in HEARTS]
    yield from copies(corpus, matches(corpus, patterns))
    yield "patients.csv", rows_of(corpus / "patients.csv", "patient", HEARTS)


def choose_dicom(corpus: Path) -> Iterator[File]:
    """Small series and objects under a licence that lets them be passed on, with where dcm2niix puts each series."""
    yield from choose_hippocampi_as_series(corpus.parent / "hippocampus")
    patterns = [f"series/{name}{end}" for name in SERIES for end in ("/*.dcm", ".geometry.json", ".nii.gz")]
    yield from copies(corpus, matches(corpus, patterns))
    yield from copies(corpus, OBJECTS)
    copied = rows_of(corpus / "manifest.csv", "name", [*SERIES, *(Path(name).name for name in OBJECTS)])
    yield "manifest.csv", copied + rows_of_series_made_here()


def choose_hippocampi_as_series(corpus: Path) -> Iterator[File]:
    """A few volumes as MR series, and the volume and the geometry that dcm2niix makes of each: derived files."""
    for name in AS_SERIES:
        series = f"mr_{name}"
        slices = write_series(nibabel.load(corpus / "images" / f"{name}.nii.gz"), name)
        yield from ((f"series/{series}/{number}.dcm", content) for number, content in enumerate(slices, start=1))
        converted = convert_series(slices)
        geometry = {"shape": list(converted.shape), "affine": converted.affine.tolist()}
        record = {"series": series, "tool": CONVERTER, "outputs": [geometry]}
        yield f"series/{series}.geometry.json", (json.dumps(record, indent=1) + "\n").encode()
        yield f"series/{series}.nii.gz", gzip.compress(converted.to_bytes(), mtime=0)


def rows_of_series_made_here() -> bytes:
    """Rows of the manifest for the series that no repository has."""
    note = "an MR series made of the volume in hippocampus/images"
    written = io.StringIO()
    writer = csv.writer(written, lineterminator="\n")
    for name in AS_SERIES:
        licence = "CC BY-SA 4.0 (Medical Segmentation Decathlon)"
        writer.writerow(["series", f"mr_{name}", "", "", "", f"hippocampus/{name}", "", licence, CONVERTER, note])
    return written.getvalue().encode()


def write_series(volume: nibabel.Nifti1Image, name: str) -> list[bytes]:
    """Axial slices from below in explicit little endian; columns run to the left, rows to the back, as of a scanner."""
    to_left_and_back = nibabel.as_closest_canonical(volume)
    voxels = np.asarray(to_left_and_back.dataobj)[::-1, ::-1]
    scale = np.abs(voxels).max() / 4095  # 12 bits, as of a scanner
    stored = np.rint(voxels / max(scale, 1)).astype(np.int16)
    spacing = to_left_and_back.header.get_zooms()
    last = np.array([*voxels.shape[:2], 1]) - 1
    corner = to_left_and_back.affine @ [*last, 1]
    return [
        write_slice(stored[..., number], name, number, spacing, corner[:3] * (-1, -1, 1))
        for number in range(stored.shape[2])
    ]


def write_slice(pixels: np.ndarray, name: str, number: int, spacing: tuple[float, ...], corner: np.ndarray) -> bytes:
    """One slice; corner: mm of the centre of its first voxel, LPS."""
    key = ["hilum data", name]
    image = pydicom.Dataset()
    image.SOPClassUID = pydicom.uid.MRImageStorage
    image.SOPInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[*key, "slice", str(number)])
    image.StudyInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[*key, "study"])
    image.SeriesInstanceUID = pydicom.uid.generate_uid(entropy_srcs=[*key, "series"])
    image.FrameOfReferenceUID = pydicom.uid.generate_uid(entropy_srcs=[*key, "frame"])
    image.ImageType = ["DERIVED", "SECONDARY", "AXIAL"]
    image.PatientName = "Decathlon^Hippocampus"
    image.PatientID = name
    image.PatientBirthDate = image.PatientSex = image.AccessionNumber = image.ReferringPhysicianName = ""
    image.StudyDate, image.StudyTime = "20191201", "120000"
    image.StudyID = "1"
    image.Modality = "MR"
    image.Manufacturer = ""
    image.StudyDescription = "MR of the head"
    image.SeriesDescription = "Hippocampus"
    image.SeriesNumber = 1
    image.InstanceNumber = number + 1
    image.ScanningSequence, image.SequenceVariant, image.ScanOptions, image.MRAcquisitionType = "GR", "MP", "", "3D"
    image.PositionReferenceIndicator = ""
    image.SliceThickness = float(spacing[2])
    image.ImagePositionPatient = [float(value) for value in corner + np.array([0, 0, number * spacing[2]])]
    image.ImageOrientationPatient = [1, 0, 0, 0, 1, 0]
    image.PixelSpacing = [float(spacing[1]), float(spacing[0])]
    image.Rows, image.Columns = pixels.shape[1], pixels.shape[0]
    image.SamplesPerPixel, image.PhotometricInterpretation = 1, "MONOCHROME2"
    image.BitsAllocated, image.BitsStored, image.HighBit, image.PixelRepresentation = 16, 16, 15, 1
    image.PixelData = pixels.T.astype("<i2").tobytes()
    image.file_meta = pydicom.dataset.FileMetaDataset()
    image.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
    written = io.BytesIO()
    pydicom.dcmwrite(written, image, enforce_file_format=True)
    return written.getvalue()


def convert_series(slices: list[bytes]) -> nibabel.Nifti1Image:
    """The volume that dcm2niix makes of the slices."""
    with tempfile.TemporaryDirectory() as room:
        for number, content in enumerate(slices, start=1):
            Path(room, f"{number}.dcm").write_bytes(content)
        command = ["dcm2niix", "-z", "n", "-f", "volume", "-o", room, room]
        subprocess.run(command, check=True, capture_output=True)  # noqa: S603
        converted = nibabel.load(Path(room, "volume.nii"))
        return nibabel.Nifti1Image(np.asarray(converted.dataobj), converted.affine, converted.header)


def choose_volume_files(corpus: Path) -> Iterator[File]:
    yield from copies(corpus, VOLUME_FILES)
    yield "manifest.csv", rows_of(corpus / "manifest.csv", "name", VOLUME_FILES)


def choose_pairs(corpus: Path) -> Iterator[File]:
    """Pairs of hippocampi of which both are shipped, slices of heads, and one simulated pair of a prostate."""
    yield from copies(corpus, matches(corpus, PAIRS))
    shipped = {Path(name).name for name, _ in choose_hippocampi(corpus.parent / "hippocampus")}
    table = read_table(corpus / "hippocampus_pairs.csv")
    fixed = [row["fixed"] for row in table if {row["fixed"], row["moving"]} <= shipped]
    yield "hippocampus_pairs.csv", rows_of(corpus / "hippocampus_pairs.csv", "fixed", fixed)
    yield "prostate_mr_us/pairs.csv", rows_of(corpus / "prostate_mr_us" / "pairs.csv", "case", ["case000000"])


def choose_bundles(corpus: Path) -> Iterator[File]:
    """Bundles whose metadata name the MONAI Consortium as holder."""
    for folder in sorted(path for path in corpus.iterdir() if path.is_dir()):
        metadata = json.loads((folder / "configs" / "metadata.json").read_text(encoding="utf-8"))
        if metadata["copyright"].endswith(BUNDLES_OF) and folder.name not in BUNDLES_LEFT_OUT:
            yield from copies(corpus, [path.relative_to(corpus).as_posix() for path in list_files(folder)])


def choose_documents(corpus: Path) -> Iterator[File]:
    yield from copies(corpus, ["chai_applied_model_card_v0.2.xsd"])


SETS: dict[str, Callable[[Path], Iterator[File]]] = {
    "hippocampus": choose_hippocampi,
    "medmnist": choose_medmnist,
    "chest_xray": choose_radiographs,
    "bccd": choose_smears,
    "dsb2018": choose_nuclei,
    "histology": choose_tissue,
    "mri/cardiac_sunnybrook": choose_hearts,
    "dicom": choose_dicom,
    "nifti": choose_volume_files,
    "registration": choose_pairs,
    "monai_zoo": choose_bundles,
    "documents": choose_documents,
}


def copies(corpus: Path, names: Iterable[str]) -> Iterator[File]:
    for name in names:
        yield name, (corpus / name).read_bytes()


def matches(corpus: Path, patterns: Iterable[str]) -> list[str]:
    """Files that fit the patterns, of which one may fit none where a set has no such file."""
    return [path.relative_to(corpus).as_posix() for pattern in patterns for path in sorted(corpus.glob(pattern))]


def read_table(path: Path) -> list[dict[str, str]]:
    with path.open(newline="", encoding="utf-8") as file:
        return list(csv.DictReader(file))


def rows_of(path: Path, column: str, values: Iterable[str]) -> bytes:
    """A table without the rows of what is not shipped."""
    kept = set(values)
    table = read_table(path)
    written = io.StringIO()
    writer = csv.DictWriter(written, fieldnames=list(table[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(row for row in table if row[column] in kept)
    return written.getvalue().encode()


if __name__ == "__main__":
    sys.exit(main())
