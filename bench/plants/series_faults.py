"""Faults of DICOM series: slices that are missing, doubled, turned, moved or of something else, and other forms."""

from __future__ import annotations

import io
import warnings
from collections.abc import Callable, Sequence
from copy import deepcopy
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pydicom
from pydicom.dataset import Dataset
from pydicom.uid import (
    DeflatedExplicitVRLittleEndian,
    ExplicitVRBigEndian,
    ExplicitVRLittleEndian,
    ImplicitVRLittleEndian,
    JPEG2000Lossless,
    JPEGLSLossless,
    RLELossless,
    generate_uid,
)

from .image_looks import differ_from, look_at_image
from .planted import Array, Fault, Planted, Random, Volume, Wanted, emptied, pick

LPS = np.diag([-1.0, -1.0, 1.0, 1.0])
# A remedy that asks for whole files, and one that asks to take away what is too much.
GET_AGAIN = r"again|get |complete|correct|missing|export|whole"
TAKE_AWAY = r"remove|leave|delete|keep|separate|split|apart|own folder|into a folder|sort|move|one of|only"
SYNTAXES = (ExplicitVRLittleEndian, ImplicitVRLittleEndian, ExplicitVRBigEndian, DeflatedExplicitVRLittleEndian)
PACKED = (RLELossless, JPEG2000Lossless, JPEGLSLossless)
MOST_SLICES = 64


@dataclass
class Series:
    """A series that faults change: its files by name, and what was too much in it.

    whole:   its files as they were before
    foreign: names of files that a fault added or made unlike
    """

    source: str
    slices: dict[str, Dataset]
    truth: Volume
    whole: dict[str, bytes]
    foreign: set[str]

    @classmethod
    def of(cls, source: str, slices: Sequence[Dataset]) -> Series:
        """A series of slices that lie evenly along their normal."""
        ordered = sorted(slices, key=lambda one: place_of(one, slices[0]))
        named = {f"IM{n:04d}.dcm": one for n, one in enumerate(ordered)}
        return cls(source, named, volume_of_slices(ordered), {}, set())

    def seal(self) -> None:
        """What the files are now is what they are when they are got again."""
        self.whole = {name: content_of(one) for name, one in self.slices.items()}

    @property
    def ordered(self) -> list[str]:
        """Names in the order of their places."""
        first = next(iter(self.slices.values()))
        return sorted(self.slices, key=lambda name: place_of(self.slices[name], first))

    def inner(self, rng: Random) -> str:
        """A slice that is at no end."""
        return rng.choice(self.ordered[1:-1])

    def made_foreign(self, rng: Random) -> Dataset:
        """An inner slice that is about to be made unlike the others."""
        name = self.inner(rng)
        self.foreign.add(name)
        return self.slices[name]

    def write(self, folder: Path) -> Path:
        """The files of the series as they are now."""
        folder.mkdir(exist_ok=True)
        for name, one in self.slices.items():
            (folder / name).write_bytes(content_of(one))
        return folder

    def restore(self, folder: Path) -> None:
        """The files as they were before."""
        emptied(folder)
        for name, content in self.whole.items():
            (folder / name).write_bytes(content)

    def leave_out(self, folder: Path) -> None:
        """The folder without what does not belong to it."""
        for name in self.foreign:
            (folder / name).unlink(missing_ok=True)

    def mends(self, *, foreign: bool = False) -> tuple[tuple[str, Callable[[Path], None]], ...]:
        """What can be done: take away what is too much, or get the files again."""
        again = (GET_AGAIN, self.restore)
        return ((TAKE_AWAY, self.leave_out), again) if foreign else (again,)


def content_of(one: Dataset) -> bytes:
    """The bytes of a file."""
    written = io.BytesIO()
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        pydicom.dcmwrite(written, one, enforce_file_format=True)
    return written.getvalue()


def normal_of(one: Dataset) -> Array:
    """The direction in which slices follow each other."""
    cosines = np.array(one.ImageOrientationPatient, float)
    return np.cross(cosines[:3], cosines[3:])


def place_of(one: Dataset, first: Dataset) -> float:
    """mm along the normal of the first slice."""
    return float(np.array(one.ImagePositionPatient, float) @ normal_of(first))


def volume_of_slices(ordered: Sequence[Dataset]) -> Volume:
    """(columns, rows, slices) values after rescaling, and index to RAS+ mm, by PS3.3 C.7.6.2.1.1."""
    planes = [
        np.asarray(one.pixel_array, float).T * float(one.get("RescaleSlope", 1)) + float(one.get("RescaleIntercept", 0))
        for one in ordered
    ]
    first, last = ordered[0], ordered[-1]
    cosines = np.array(first.ImageOrientationPatient, float)
    rows, columns = (float(one) for one in first.PixelSpacing)
    start = np.array(first.ImagePositionPatient, float)
    step = (np.array(last.ImagePositionPatient, float) - start) / (len(ordered) - 1)
    affine = np.eye(4)
    affine[:3] = np.stack([cosines[:3] * columns, cosines[3:] * rows, step, start], axis=1)
    return Volume(np.stack(planes, axis=-1), LPS @ affine)


def series_in(folder: Path) -> list[Dataset] | None:
    """The slices of a folder; None where they are not one even series of single-channel CT or MR, by its headers."""
    files = [path for path in sorted(folder.iterdir()) if path.is_file()]
    if not 4 <= len(files) <= MOST_SLICES:
        return None
    try:
        slices = [pydicom.dcmread(path) for path in files]
        if len({(one.SeriesInstanceUID, one.Rows, one.Columns, *one.PixelSpacing) for one in slices}) != 1:
            return None
        first = slices[0]
        plain = first.Modality in ("CT", "MR") and first.SamplesPerPixel == 1 and "NumberOfFrames" not in first
        cosines = np.array([one.ImageOrientationPatient for one in slices], float)
        places = np.sort([place_of(one, first) for one in slices])
        positions = np.array([one.ImagePositionPatient for one in slices], float)
        gaps = np.diff(places)
        even = np.ptp(gaps) < 0.01 * gaps.min() and np.ptp(cosines, axis=0).max() < 1e-4
        normal = normal_of(first)
        across = positions - (positions @ normal)[:, None] * normal
        straight = np.ptp(across, axis=0).max() < 0.01
        small = first.Rows * first.Columns * len(slices) <= 1 << 22
        decoded = all(one.pixel_array.ndim == 2 for one in slices)
    except (
        AttributeError,
        ValueError,
        TypeError,
        KeyError,
        NotImplementedError,
        RuntimeError,
        pydicom.errors.InvalidDicomError,
    ):
        return None
    if not (plain and even and straight and small and decoded and gaps.min() > 0.01):
        return None
    if any(word in first for word in ("ModalityLUTSequence", "RealWorldValueMappingSequence")):
        return None
    return slices


def series_of(volume: Volume, rng: Random) -> list[Dataset]:
    """A volume as an MR or CT series that a scanner might have written, its first axes in the plane."""
    values = np.asarray(volume.values, float)
    low, high = float(values.min()), float(values.max())
    slope = max(1.0, (high - low) / 4000)
    stored = np.round((values - low) / slope).astype("<u2")
    assert volume.affine is not None
    affine = LPS @ volume.affine
    if np.linalg.det(affine[:3, :3]) < 0:  # slices follow each other along the normal
        affine = affine @ np.diag([1, 1, -1, 1])
        affine[:, 3] -= affine[:, 2] * (values.shape[2] - 1)
        stored = stored[:, :, ::-1]
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    study, series, frame = generate_uid(), generate_uid(), generate_uid()
    modality = rng.choice(("CT", "MR"))
    slices = []
    for n in range(stored.shape[2]):
        one = Dataset()
        one.file_meta = pydicom.dataset.FileMetaDataset()
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
        one.SOPClassUID = f"1.2.840.10008.5.1.4.1.1.{2 if modality == 'CT' else 4}"
        one.SOPInstanceUID, one.StudyInstanceUID, one.SeriesInstanceUID = generate_uid(), study, series
        one.FrameOfReferenceUID, one.Modality = frame, modality
        one.PatientID, one.PatientName, one.InstanceNumber = "4711", "Doe^Jane", n + 1
        one.PixelSpacing = [written(steps[1]), written(steps[0])]
        one.ImageOrientationPatient = [written(x) for x in (*affine[:3, 0] / steps[0], *affine[:3, 1] / steps[1])]
        one.ImagePositionPatient = [written(x) for x in affine[:3, 3] + n * affine[:3, 2]]
        one.SliceThickness = written(steps[2])
        one.Columns, one.Rows = stored.shape[:2]
        one.SamplesPerPixel, one.PhotometricInterpretation = 1, "MONOCHROME2"
        one.BitsAllocated, one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 12, 11, 0
        one.RescaleSlope, one.RescaleIntercept = written(slope), written(low)
        one.PixelData = np.ascontiguousarray(stored[:, :, n].T).tobytes()
        slices.append(one)
    return slices


def written(number: float) -> str:
    """A decimal string of at most 16 characters."""
    return next(text for digits in range(12, 0, -1) if len(text := f"{float(number):.{digits}g}") <= 16)


def drop_inner(series: Series, rng: Random) -> Wanted:
    """A slice within the series is missing."""
    del series.slices[series.inner(rng)]
    return Wanted(("refused",), "missing|gap|even", series.mends())


def drop_end(series: Series, rng: Random) -> Wanted:
    """The last slice is missing: nothing in the others tells it, and they are what they were."""
    ordered = series.ordered
    del series.slices[ordered[-1]]
    series.truth = volume_of_slices([series.slices[name] for name in ordered[:-1]])
    return Wanted(("same", "refused"), "", series.mends())


def copy_file(series: Series, rng: Random) -> Wanted:
    """A file lies there twice, bit for bit, under two names."""
    name = rng.choice(list(series.slices))
    series.slices["copy of " + name] = deepcopy(series.slices[name])
    series.foreign.add("copy of " + name)
    return Wanted(("same", "refused"), "", series.mends(foreign=True))


def double_place(series: Series, rng: Random) -> Wanted:
    """Two unlike slices say that they lie in one place."""
    name = rng.choice(list(series.slices))
    double = deepcopy(series.slices[name])
    double.SOPInstanceUID = double.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    set_pixels(double, pixels_of(double)[::-1])
    series.slices["IM9000.dcm"] = double
    series.foreign.add("IM9000.dcm")
    return Wanted(("refused",), "", series.mends(foreign=True))


def turn_slice(series: Series, rng: Random) -> Wanted:
    """One slice is stated to lie in another direction."""
    one = series.made_foreign(rng)
    cosines = np.array(one.ImageOrientationPatient, float)
    turned = [*cosines[3:], *-cosines[:3]] if rng.random() < 0.5 else rotate(cosines, np.deg2rad(rng.uniform(3, 30)))
    one.ImageOrientationPatient = [written(x) for x in turned]
    return Wanted(("refused",), "", series.mends(foreign=True))


def rotate(cosines: Array, angle: float) -> Array:
    """Cosines turned about their rows."""
    normal = np.cross(cosines[:3], cosines[3:])
    return np.concatenate([cosines[:3], np.cos(angle) * cosines[3:] + np.sin(angle) * normal])


def move_along(series: Series, rng: Random) -> Wanted:
    """One slice lies between its neighbours where it should not."""
    one = series.made_foreign(rng)
    first, second = (np.array(series.slices[name].ImagePositionPatient, float) for name in series.ordered[:2])
    moved = np.array(one.ImagePositionPatient, float) + rng.uniform(0.3, 0.7) * (second - first)
    one.ImagePositionPatient = [written(x) for x in moved]
    return Wanted(("refused",), "", series.mends(foreign=True))


def move_across(series: Series, rng: Random) -> Wanted:
    """One slice is shifted within its plane by some pixels."""
    one = series.made_foreign(rng)
    across = np.array(one.ImageOrientationPatient, float)[:3] * rng.uniform(3, 12) * float(one.PixelSpacing[1])
    one.ImagePositionPatient = [written(x) for x in np.array(one.ImagePositionPatient, float) + across]
    return Wanted(("refused",), "", series.mends(foreign=True))


def lose_position(series: Series, rng: Random) -> Wanted:
    """One slice lacks the position that its neighbours have."""
    del series.made_foreign(rng).ImagePositionPatient
    return Wanted(("refused",), "", series.mends(foreign=True))


def change_patient(series: Series, rng: Random) -> Wanted:
    """One slice says that it is of another person."""
    one = series.made_foreign(rng)
    one.PatientID, one.PatientName = "0815", "Roe^Richard"
    return Wanted(("refused", "named"), "patient|person", series.mends(foreign=True))


def change_frame(series: Series, rng: Random) -> Wanted:
    """One slice has another frame of reference."""
    for one in series.slices.values():
        one.FrameOfReferenceUID = "1.2.3.4"
    series.made_foreign(rng).FrameOfReferenceUID = generate_uid()
    return Wanted(("refused",), "frame", series.mends(foreign=True))


def cut_size(series: Series, rng: Random) -> Wanted:
    """One slice has fewer rows."""
    one = series.made_foreign(rng)
    set_pixels(one, pixels_of(one)[: -rng.randint(1, 8)])
    return Wanted(("refused",), "", series.mends(foreign=True))


def change_spacing(series: Series, rng: Random) -> Wanted:
    """One slice has another size of a pixel."""
    one = series.made_foreign(rng)
    one.PixelSpacing = [written(float(x) * rng.uniform(1.1, 2)) for x in one.PixelSpacing]
    return Wanted(("refused",), "", series.mends(foreign=True))


def change_slope(series: Series, rng: Random) -> Wanted:
    """Each slice has a slope of its own, as of PET, with which its values are what they were stated to be."""
    for one in series.slices.values():
        one.RescaleSlope, one.RescaleIntercept = written(rng.choice((0.5, 1.25, 2))), written(rng.choice((-1024, 0, 3)))
    series.truth = volume_of_slices([series.slices[name] for name in series.ordered])
    return Wanted(("same",), within=(1e-3, 1e-6))


def reverse_names(series: Series, rng: Random) -> Wanted:
    """Names and numbers of instances run from the other end, or are shuffled."""
    names = list(series.slices)
    mixed = names[::-1] if rng.random() < 0.5 else rng.sample(names, len(names))
    series.slices = {name: series.slices[old] for name, old in zip(names, mixed, strict=True)}
    for number, one in enumerate(series.slices.values()):
        one.InstanceNumber = number + 1
    series.foreign = {new for new, old in zip(names, mixed, strict=True) if old in series.foreign}
    return Wanted(("same",))


def lose_numbers(series: Series, rng: Random) -> Wanted:
    """Numbers of instances are absent, or all one."""
    absent = rng.random() < 0.5
    for one in series.slices.values():
        if absent:
            one.pop("InstanceNumber", None)
        else:
            one.InstanceNumber = 1
    return Wanted(("same",))


def exchange_axes(series: Series, rng: Random) -> Wanted:
    """Rows and columns change places, with their cosines and sizes."""
    for one in series.slices.values():
        cosines = [float(x) for x in one.ImageOrientationPatient]
        one.ImageOrientationPatient = [written(x) for x in (*cosines[3:], *cosines[:3])]
        one.PixelSpacing = list(one.PixelSpacing)[::-1]
        set_pixels(one, pixels_of(one).T)
    return Wanted(("same",))


def store_from_other_end(series: Series, rng: Random) -> Wanted:
    """Columns or rows run from the other end, with cosines and position."""
    along = rng.randrange(2)
    for one in series.slices.values():
        cosines = np.array(one.ImageOrientationPatient, float).reshape(2, 3)
        size, step = (one.Columns, one.PixelSpacing[1]) if along == 0 else (one.Rows, one.PixelSpacing[0])
        start = np.array(one.ImagePositionPatient, float) + cosines[along] * (int(size) - 1) * float(step)
        cosines[along] *= -1
        one.ImagePositionPatient = [written(x) for x in start]
        one.ImageOrientationPatient = [written(x) for x in cosines.ravel()]
        set_pixels(one, np.flip(pixels_of(one), 1 - along))
    return Wanted(("same",), within=(0.01, 1e-6))


def change_syntax(series: Series, rng: Random) -> Wanted:
    """The files have another transfer syntax, without a loss."""
    syntax = rng.choice(SYNTAXES)
    for one in series.slices.values():
        pixels = pixels_of(one)
        one.file_meta.TransferSyntaxUID = syntax
        set_pixels(one, pixels)
    return Wanted(("same",))


def pack_pixels(series: Series, rng: Random) -> Wanted:
    """The pixels are packed without a loss."""
    syntax = rng.choice(PACKED)
    for one in series.slices.values():
        uid = one.SOPInstanceUID
        one.compress(syntax)
        one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = uid
    return Wanted(("same",))


def fill_high_bits(series: Series, rng: Random) -> Wanted:
    """Bits above those that are stored hold something else, which PS3.5 8.1.1 lets them."""
    for one in series.slices.values():
        pixels = pixels_of(one)
        one.PixelData = (pixels.astype("<u2") | np.uint16(0xF000)).tobytes()
    return Wanted(("same",))


def store_signed(series: Series, rng: Random) -> Wanted:
    """Numbers are stored with a sign, and moved, and the intercept moves them back."""
    for one in series.slices.values():
        pixels = pixels_of(one).astype(np.int64) - 2048
        one.BitsStored, one.HighBit, one.PixelRepresentation = 16, 15, 1
        slope = float(one.get("RescaleSlope", 1))
        one.RescaleIntercept = written(float(one.get("RescaleIntercept", 0)) + 2048 * slope)
        one.RescaleSlope = written(slope)
        set_pixels(one, pixels.astype("<i2"))
        for word in ("SmallestImagePixelValue", "LargestImagePixelValue", "PixelPaddingValue"):
            one.pop(word, None)
    return Wanted(("same",), within=(1e-3, 1e-5))


def round_positions(series: Series, rng: Random) -> Wanted:
    """Positions have one decimal."""
    for one in series.slices.values():
        one.ImagePositionPatient = [f"{float(x):.1f}" for x in one.ImagePositionPatient]
    return Wanted(("same", "named"), "round|position|decimal", within=(0.1, 1e-6))


def add_noise_to_cosines(series: Series, rng: Random) -> Wanted:
    """Cosines differ in the fifth digit from slice to slice."""
    for one in series.slices.values():
        one.ImageOrientationPatient = [
            written(float(x) + rng.uniform(-2e-5, 2e-5)) for x in one.ImageOrientationPatient
        ]
    return Wanted(("same",), within=(0.05, 1e-6))


def add_other_series(series: Series, rng: Random) -> Wanted:
    """Another series of the same person lies in the folder."""
    uid = generate_uid()
    for name in series.ordered:
        other = deepcopy(series.slices[name])
        other.SeriesInstanceUID = uid
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        set_pixels(other, pixels_of(other)[:, ::-1])
        series.slices["other" + name] = other
        series.foreign.add("other" + name)
    return Wanted(("refused",), "", series.mends(foreign=True))


def tilt_gantry(series: Series, rng: Random) -> Wanted:
    """Each slice is shifted by the same part of a pixel against the one before, as of a gantry that is tilted."""
    first = series.slices[series.ordered[0]]
    step = rng.uniform(0.2, 0.8) * float(first.PixelSpacing[0])
    down = np.array(first.ImageOrientationPatient, float)[3:]
    for number, name in enumerate(series.ordered):
        position = np.array(series.slices[name].ImagePositionPatient, float)
        series.slices[name].ImagePositionPatient = [written(x) for x in position + number * step * down]
    series.truth = volume_of_slices([series.slices[name] for name in series.ordered])
    return Wanted(("same",), within=(0.01, 1e-6))


def contradict_gap(series: Series, rng: Random) -> Wanted:
    """The thickness and the gap that are stated are not those of the positions, which decide (PS3.3 C.7.6.2.1.1)."""
    for one in series.slices.values():
        one.SliceThickness, one.SpacingBetweenSlices = "9.5", "11.25"
    return Wanted(("same",))


def name_oddly(series: Series, rng: Random) -> Wanted:
    """Files have other names: no ending, blanks, letters of other scripts."""
    style = rng.choice(("{}", "1.2.840.{}", "Scan {} (2).dcm", "画像{}.dcm", "ä{}.IMA"))
    series.slices = {style.format(n): one for n, one in enumerate(series.slices.values(), 1)}
    return Wanted(("same",))


def add_private(series: Series, rng: Random) -> Wanted:
    """Attributes of a manufacturer, and names of people in Japanese."""
    for one in series.slices.values():
        one.SpecificCharacterSet = ["", "ISO 2022 IR 87"]
        one.PatientName = "Yamada^Tarou=山田^太郎=やまだ^たろう"
        block = one.private_block(0x0029, "SOMEBODY 1.0", create=True)
        block.add_new(0x01, "OB", rng.randbytes(2 * rng.randint(1, 2000)))
        block.add_new(0x02, "LO", "long " * 10)
    return Wanted(("same",))


def double_all(series: Series, rng: Random) -> Wanted:
    """Every place is there twice, as of two times that nobody stated."""
    for name in series.ordered:
        other = deepcopy(series.slices[name])
        other.SOPInstanceUID = other.file_meta.MediaStorageSOPInstanceUID = generate_uid()
        other.InstanceNumber = int(other.get("InstanceNumber") or 0) + 1000
        set_pixels(other, pixels_of(other)[::-1])
        series.slices["second" + name] = other
        series.foreign.add("second" + name)
    return Wanted(("refused", "named"), "", series.mends(foreign=True))


def lose_slope(series: Series, rng: Random) -> Wanted:
    """One slice lacks the slope that its neighbours have."""
    for one in series.slices.values():
        one.RescaleSlope, one.RescaleIntercept = "2", "-1024"
    series.seal()
    one = series.made_foreign(rng)
    del one.RescaleSlope
    del one.RescaleIntercept
    return Wanted(("refused", "named"), "slope|rescale", series.mends(foreign=True))


def lose_size(series: Series, rng: Random) -> Wanted:
    """Pixels have a size of nothing, or less."""
    for one in series.slices.values():
        one.PixelSpacing = rng.choice((["0", "0"], ["-1", "1"]))
    return Wanted(("refused",), "", series.mends())


def pixels_of(one: Dataset) -> Array:
    """(rows, columns) numbers as they are stored."""
    return np.asarray(one.pixel_array)


def set_pixels(one: Dataset, pixels: Array) -> None:
    """Pixels without packing, in the order of bytes of the file."""
    if one.file_meta.TransferSyntaxUID.is_compressed and one.file_meta.TransferSyntaxUID not in SYNTAXES:
        one.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    one.Rows, one.Columns = pixels.shape
    order = ">" if one.file_meta.TransferSyntaxUID == ExplicitVRBigEndian else "<"
    width = int(one.BitsAllocated) // 8
    kind = "i" if one.PixelRepresentation else "u"
    one.PixelData = np.ascontiguousarray(pixels).astype(f"{order}{kind}{width}").tobytes()
    one["PixelData"].VR = "OW" if width == 2 else "OB"
    one._pixel_array = None


def lose_preamble(series: Series, folder: Path, rng: Random) -> Wanted:
    """Files begin with their first attribute, without the 128 bytes and the word DICM before it."""
    for path in folder.iterdir():
        path.write_bytes(path.read_bytes()[132:])
    return Wanted(("same", "refused"), "", series.mends())


def spread_over_folders(series: Series, folder: Path, rng: Random) -> Wanted:
    """Half of the files lie in a folder of their own."""
    (folder / "part2").mkdir()
    for path in sorted(folder.glob("*"))[::2]:
        if path.is_file():
            path.rename(folder / "part2" / path.name)
    return Wanted(("same", "refused"), "", series.mends())


def cut_file(series: Series, folder: Path, rng: Random) -> Wanted:
    """One file ends within its pixels, which are the last part of it."""
    path = folder / rng.choice(list(series.slices))
    content = path.read_bytes()
    path.write_bytes(content[: -int(rng.uniform(0.1, 0.9) * len(series.slices[path.name].PixelData)) - 2])
    return Wanted(("refused",), "", series.mends())


def empty_file(series: Series, folder: Path, rng: Random) -> Wanted:
    """One file has no bytes, as of a copy that failed."""
    (folder / series.inner(rng)).write_bytes(b"")
    return Wanted(("refused",), "", series.mends())


def add_bytes_behind(series: Series, folder: Path, rng: Random) -> Wanted:
    """Zeros follow the last part of one file, as of a disk that writes whole blocks."""
    path = folder / rng.choice(list(series.slices))
    path.write_bytes(path.read_bytes() + bytes(rng.choice((1, 2, 7, 8, 512))))
    return Wanted(("same", "named", "refused"), "", series.mends())


def add_junk(series: Series, folder: Path, rng: Random) -> Wanted:
    """Files that systems leave behind lie in the folder."""
    for name in rng.sample((".DS_Store", "Thumbs.db", "._IM0001.dcm", "desktop.ini", "notes.txt", "report.pdf"), 3):
        (folder / name).write_bytes(b"\0\5\x16\7" + rng.randbytes(90) if name.startswith("._") else rng.randbytes(64))
    return Wanted(("same",))


def is_plain(series: Series) -> bool:
    """Whether numbers are of 16 bits without a sign and with room above them."""
    return all(
        one.BitsAllocated == 16 and one.BitsStored <= 12 and one.PixelRepresentation == 0
        and one.file_meta.TransferSyntaxUID in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        for one in series.slices.values()
    )  # fmt: skip


def is_unpacked(series: Series) -> bool:
    """Whether pixels are stored without packing, in the usual order of bytes."""
    return all(
        one.file_meta.TransferSyntaxUID in (ExplicitVRLittleEndian, ImplicitVRLittleEndian)
        for one in series.slices.values()
    )


# What keeps the values and their place, what does not, and what is done to files that are written.
HARMLESS = (
    Fault("the last slice missing", drop_end),
    Fault("a slope for each slice", change_slope),
    Fault("names from the other end", reverse_names),
    Fault("no numbers of instances", lose_numbers),
    Fault("axes exchanged with cosines", exchange_axes, is_unpacked),
    Fault("stored from the other end", store_from_other_end, is_unpacked),
    Fault("another transfer syntax", change_syntax, is_unpacked),
    Fault("pixels packed", pack_pixels, is_plain),
    Fault("bits above those stored", fill_high_bits, is_plain),
    Fault("numbers with a sign", store_signed, is_plain),
    Fault("positions with one decimal", round_positions),
    Fault("cosines with noise", add_noise_to_cosines),
    Fault("a tilted gantry", tilt_gantry),
    Fault("a gap that positions contradict", contradict_gap),
    Fault("odd names of files", name_oddly),
    Fault("private attributes and names in Japanese", add_private),
)
BREAKING = (
    Fault("a slice missing", drop_inner),
    Fault("a file twice", copy_file),
    Fault("a place twice", double_place),
    Fault("a slice turned", turn_slice),
    Fault("a slice moved along", move_along),
    Fault("a slice moved across", move_across),
    Fault("a slice without a position", lose_position),
    Fault("a slice of another patient", change_patient),
    Fault("another frame of reference", change_frame),
    Fault("a slice of another size", cut_size, is_unpacked),
    Fault("another size of a pixel", change_spacing),
    Fault("another series in the folder", add_other_series, is_unpacked),
    Fault("every place twice", double_all, is_unpacked),
    Fault("a slice without its slope", lose_slope),
    Fault("pixels without a size", lose_size),
)
IN_FILES = (
    Fault("a file cut", cut_file, is_unpacked),
    Fault("a file without bytes", empty_file),
    Fault("bytes behind", add_bytes_behind),
    Fault("junk beside", add_junk),
    Fault("files without a preamble", lose_preamble),
    Fault("files in two folders", spread_over_folders),
)


def plant(series: Series, folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """One fault, or in three of ten draws one and another that keeps the values."""
    first = pick((*HARMLESS, *BREAKING, *IN_FILES), series, rng)
    assert first is not None
    chosen = [first]
    if rng.random() < 0.3:
        others = IN_FILES if first in HARMLESS else HARMLESS
        second = pick(others, series, rng, chosen)
        chosen += [second] if second is not None else []
    wanted = Wanted(("same",))
    for fault in chosen:
        if fault in HARMLESS:
            wanted = wanted.beside(fault.plant(series, rng))
    series.seal()
    for fault in chosen:
        if fault in BREAKING:
            wanted = wanted.beside(fault.plant(series, rng))
    path = series.write(folder / "series")
    for fault in chosen:
        if fault in IN_FILES and fault.fits(series):
            wanted = wanted.beside(fault.plant(series, path, rng))
    return chosen, Planted(series.source, path, wanted, look_at_image, differ_from(series.truth))
