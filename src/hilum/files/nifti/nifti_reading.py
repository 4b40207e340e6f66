"""NIfTI-1, NIfTI-2 and Analyze 7.5, https://nifti.nimh.nih.gov: single files and pairs, plain or gzipped.

The header of most files has nothing to repair and is read here; odd ones are left to nibabel, whose import takes a
third of a second: as long as to read a volume.
"""

from __future__ import annotations

import io
import logging
from collections.abc import Mapping
from copy import copy
from math import prod
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final, Literal, Self

import numpy as np

from hilum.errors import FormatError
from hilum.files import _voxel_files, label_table, spectra
from hilum.files.format_options import Format, ReadOptions
from hilum.files.modality_words import CODES, UNKNOWN_MODALITY
from hilum.files.nifti import header_statements, nifti_header, nifti_writing
from hilum.files.nifti.nifti_header import END_OF_LINE, FIELDS, MAGIC, SMALLEST_SQUARE, TYPES, NiftiHeader
from hilum.files.spectra import WATER_PPM, SpectralAxis
from hilum.files.storage import folder_files, packed_files, structured_text
from hilum.files.storage.block import VoxelBlock
from hilum.lazy import nibabel
from hilum.values import FactRule, FileFacts, Image, Source
from hilum.values.voxel_images import LABEL_MAP

if TYPE_CHECKING:
    from hilum.values.plain_values import PlainValue

SECONDS = {"sec": 1.0, "msec": 1e-3, "usec": 1e-6}
# Header extensions are text of a few kB; more is a damaged offset.
LARGEST_HEAD = 1 << 24
# The JSON file of an image has some KiB; more is another kind of record.
LARGEST_SIDECAR = 1 << 20
HEADERS = (".hdr", ".HDR")
PAIRS = ((".hdr", ".img"), (".img", ".hdr"), (".HDR", ".IMG"), (".IMG", ".HDR"))
# NIfTI intents whose "voxels" are points of a surface, and the range of CIFTI-2.
SURFACES = {1008: "points of a surface", 1009: "triangles of a surface"}
CIFTI = range(3000, 3100)

# nibabel's messages about a header become notes of the image and are not printed.
_silent = logging.getLogger("hilum.files.nifti.nifti_reading.header")
INTENT, EXTENSION = b"mrs_v", 44
# Of the further dimensions that which can be channels; coils and repeats are to be combined before.
EDITED = "DIM_EDIT"
USUAL = ("DIM_COIL", "DIM_DYN", "DIM_INDIRECT_0")


_silent.addHandler(logging.NullHandler())
_silent.propagate = False
ORDERS: Final[tuple[Literal["<"], Literal[">"]]] = ("<", ">")
FORM_CODES: Final = range(6)
ALIGNMENT: Final = 16  # bytes, at which SPM wants the voxels to begin
# NIFTI_UNITS_*, by the names that nibabel gives them.
OF_SPACE: Final = {0: "unknown", 1: "meter", 2: "mm", 3: "micron"}
OF_TIME: Final = {0: "unknown", 8: "sec", 16: "msec", 24: "usec", 32: "hz", 40: "ppm", 48: "rads"}
NAMES: Final = {number: name for name, number in TYPES.items()}
FREESURFER: Final = (27307, 1, 6)  # an axis of 163842 points, in three


def read(path: Path, options: ReadOptions) -> Mapping[str, Image]:
    """The one volume or series of volumes in the file; a fourth axis becomes frames, a fifth one channels.

    Raises FormatError for what is no image or is cut short, GeometryError for forms that contradict each other.
    """
    head_path, voxel_path = _pair(path)
    header, notes = _header(head_path, single=head_path == voxel_path)
    _refuse_surfaces(header, path)
    if is_spectrum(header):
        return read_spectrum(path, stem_of_nifti(path), options)
    layout = _layout(header, path)
    geometry, about_geometry = nifti_header.geometry_of(header, str(path), options.prefer)
    scaling, about_values = _scaling(header)
    block = _block(header, voxel_path, layout, scaling, options)
    if voxel_path != head_path and not block.offset and _begins_with_header(voxel_path):
        remedy = f"Write {block.surplus} in vox_offset of the header, or read {voxel_path.name} alone as .nii"
        block.refuse_unplaced(path, "vox_offset", remedy)
    pixels = block.defer()
    times, about_times = _times(header, pixels.shape, str(path))
    if not nifti_header.is_nifti(header) and block.slope != 1.0:
        notes.append("The values are scaled by the factor that SPM keeps in an unused field of Analyze 7.5.")
    colours = header.get_data_dtype().names or ()
    frames = pixels.shape[1] if len(pixels.shape) == geometry.ndim + 2 else None
    modality, records = stated_modality(path, stem_of_nifti(path))
    b_values = read_b_values(path, stem_of_nifti(path), frames)
    b_value_tables = () if b_values is None else (b_value_table(path, stem_of_nifti(path)),)
    tables = (*label_table.own_tables(path), *b_value_tables, *records)
    is_known = nifti_header.is_nifti(header)
    stated = list(header_statements.statement_notes(header, frames)) if is_known else []
    if frames is not None and path.with_name(f"{stem_of_nifti(path)}.bvec").is_file():
        stated.append("The directions of its gradients (.bvec) are not read.")
    labels = label_table.labels_of_map(path)
    if is_known and not labels:
        labels = header_statements.labels_in_extension(header, str(path))
    facts: FileFacts = {} if b_values is None else {"b_values": b_values}
    window = header_statements.display_window(header) if is_known else None
    if window is not None:
        facts = {**facts, "window": window}
    if is_known and header_statements.is_label_map(header):
        facts = {**facts, LABEL_MAP: True}
    about_modality = [f"The modality is {modality}, as {record.name} states." for record in records]
    image = Image(
        pixels,
        geometry,
        modality=modality,
        channels=tuple(colours),
        times=times,
        labels=labels,
        notes=(*notes, *about_geometry, *about_times, *about_values, *about_modality, *stated, *block.surplus_notes),
        facts=facts,
        source=Source("nifti", folder_files.unique_paths(path, head_path, voxel_path, *tables), header),
    )
    return {stem_of_nifti(path): image}


def stem_of_nifti(path: Path) -> str:
    """The file's name without the suffixes of the format."""
    name = path.name
    for suffix in (".gz", ".nii", ".hdr", ".img"):
        name = name[: -len(suffix)] if name.lower().endswith(suffix) else name
    return name or path.name


def _pair(path: Path) -> tuple[Path, Path]:
    """(file with the header, file with the voxels); twice the same for a single file."""
    for ending, other in PAIRS:
        for packed in ("", ".gz"):
            if not path.name.endswith(ending + packed):
                continue
            base = path.name.removesuffix(ending + packed)
            twins = [path.with_name(base + other + end) for end in (packed, "", ".gz")]
            twin = next((twin for twin in twins if twin.is_file()), None)
            if twin is None:
                raise FormatError(
                    f"half of a pair: {base + other} is missing", str(path), "Put both files into one folder"
                )
            folder_files.not_elsewhere(twin, path)
            return (path, twin) if ending in HEADERS else (twin, path)
    return path, path


def _header(path: Path, *, single: bool) -> tuple[Any, list[str]]:
    """The header where there is nothing to repair, else nibabel's, and notes on what is odd in it.

    single: whether the voxels lie in the same file, which Analyze does not know
    """
    head = packed_files.read_head(path, 544)
    if single and (sound := SoundHeader.from_file_start(head)) is not None:
        return sound, []
    kinds = {
        b"n+1": nibabel.nifti1.Nifti1Header,
        b"ni1": nibabel.nifti1.Nifti1PairHeader,
        b"n+2": nibabel.nifti2.Nifti2Header,
        b"ni2": nibabel.nifti2.Nifti2PairHeader,
    }
    kind: Any = kinds.get(head[344:347]) or kinds.get(head[4:7]) or nibabel.analyze.AnalyzeHeader
    size = kind.template_dtype.itemsize
    if len(head) < size:
        raise FormatError(f"a header of {len(head)} bytes where {size} are needed", str(path), "Get the file again")
    try:
        header = kind(head[:size], check=False)
        if kind is nibabel.analyze.AnalyzeHeader:
            if int(header["sizeof_hdr"]) != size:
                raise FormatError("neither a NIfTI nor an Analyze header", str(path), "Check what kind of file it is")
            if single:
                raise FormatError("a NIfTI header with no magic number", str(path), "The header is damaged: correct it")
            # Plain Analyze has no scaling.
            header = nibabel.spm2analyze.Spm2AnalyzeHeader(head[:size], header.endianness, check=False)
        if single and nifti_header.is_nifti(header) and not header.is_single and int(header["vox_offset"]) < size:
            problem = "the header is that of a pair (ni1), and the voxels would begin within the header"
            raise FormatError(problem, str(path), "Name both files .hdr and .img, or correct the magic number to n+1")
        # Zero or negative voxel sizes are judged by `geometry_of`, which needs them unchanged.
        pixdim = header["pixdim"].copy()
        notes = _repair_header(header)
        header["pixdim"][1:] = pixdim[1:]
        if kind in (nibabel.nifti1.Nifti1Header, nibabel.nifti2.Nifti2Header):
            header.extensions = _extensions(kind, path, int(header["vox_offset"]), size)
    except nibabel.spatialimages.HeaderDataError as error:
        if "not supported" in str(error):  # of a type of number: bits, or 128 of them
            raise FormatError(f"{error}", str(path), "Convert the voxels to a common number type") from error
        raise FormatError(f"the header is damaged ({error})", str(path), "Get the file again") from error
    return header, notes


def _repair_header(header: Any) -> list[str]:
    """Have nibabel repair what is harmless (a wrong bitpix, a missing qfac), and note it."""
    messages: list[str] = []
    handler = logging.Handler()
    handler.emit = lambda record: messages.append(record.getMessage())  # type: ignore[method-assign]  # of this handler alone
    _silent.addHandler(handler)
    try:
        header.check_fix(logger=_silent, error_level=40)
    finally:
        _silent.removeHandler(handler)
    return [f"The header was repaired: {text}." for text in messages if "pixdim[1,2,3]" not in text]


def _extensions(kind: Any, path: Path, offset: int, size: int) -> Any:
    """The header's extensions; those that cannot be read are left out: they do not concern the voxels."""
    if not size + 4 < offset < LARGEST_HEAD:
        return kind.exts_klass()
    try:
        return kind.from_fileobj(io.BytesIO(packed_files.read_head(path, offset)), check=False).extensions
    except (nibabel.spatialimages.HeaderDataError, ValueError):
        return kind.exts_klass()


def _refuse_surfaces(header: Any, path: Path) -> None:
    if not nifti_header.is_nifti(header):
        return
    intent = int(header["intent_code"])
    if intent in CIFTI or any(extension.get_code() == 32 for extension in header.extensions):
        raise FormatError(
            "CIFTI-2: values on grey-ordinates, not a volume",
            str(path),
            "Map them to a volume with Connectome Workbench",
        )
    if intent in SURFACES:
        raise FormatError(f"{SURFACES[intent]}, not a volume", str(path), "Give the volume it was made from")


def _layout(header: Any, path: Path) -> tuple[tuple[int, ...], tuple[int, ...]]:
    """Shape of the voxels in the file, fastest axis first, and which axes become (channels[, frames], *spatial)."""
    count = int(header["dim"][0])
    dim = [int(n) for n in header["dim"][1 : count + 1]] + [1] * (7 - count)
    if not 1 <= count <= 7 or min(dim) < 1 or prod(dim[5:]) != 1:
        raise FormatError(f"axes of {header['dim'].tolist()}", str(path), "Up to five axes can be read: get it again")
    *spatial, frames, vector = dim[:5]
    colours = len(header.get_data_dtype().names or ())
    if colours and vector > 1:
        raise FormatError("a vector of colours in each voxel", str(path), "Split it into several files")
    if colours:
        return (colours, *spatial, frames), (0, 4, 1, 2, 3) if frames > 1 else (0, 1, 2, 3)
    return (*spatial, frames, vector), (4, 3, 0, 1, 2) if frames > 1 else (4, 0, 1, 2)


def _block(
    header: Any,
    path: Path,
    layout: tuple[tuple[int, ...], tuple[int, ...]],
    scaling: tuple[float, float],
    options: ReadOptions,
) -> VoxelBlock:
    single = nifti_header.is_nifti(header) and header.is_single
    offset = int(header["vox_offset"]) or (header.single_vox_offset if single else 0)
    dtype = header.get_data_dtype()
    shape, axes = layout
    return VoxelBlock(
        path,
        np.dtype(np.uint8) if dtype.names else dtype,
        # The axes of length 1 that stand for no frames are dropped: they move no voxel.
        tuple(size for axis, size in enumerate(shape) if axis in axes),
        _renumber(axes),
        offset=offset,
        compression=packed_files.compression_of(path),
        slope=scaling[0],
        intercept=scaling[1],
        part=options.part,
    )


def _begins_with_header(path: Path) -> bool:
    """Whether a file of voxels begins with a header of its own: its size, and the mark of NIfTI-1 or NIfTI-2."""
    head = packed_files.read_head(path, 348)
    return head[344:347] in (b"n+1", b"ni1") or head[4:7] in (b"n+2", b"ni2")


def _renumber(axes: tuple[int, ...]) -> tuple[int, ...]:
    order = sorted(axes)
    return tuple(order.index(axis) for axis in axes)


def _scaling(header: Any) -> tuple[tuple[float, float], list[str]]:
    """((slope, intercept), notes); a slope of 0 means that nothing is scaled, as NIfTI-1 defines."""
    if header.get_data_dtype().names:
        return (1.0, 0.0), []
    slope = float(header["scl_slope"])
    if not np.isfinite(slope):  # as nibabel and SPM read it
        return (1.0, 0.0), [f"The header's scl_slope is {slope}, which is not a number: values are not scaled."]
    if nifti_header.is_nifti(header):
        return ((slope, float(header["scl_inter"])) if slope else (1.0, 0.0)), []
    slope, intercept = header.get_slope_inter()
    return ((1.0, 0.0) if slope is None else (float(slope), float(intercept or 0.0))), []


def _times(header: Any, shape: tuple[int, ...], where: str) -> tuple[tuple[float, ...] | None, list[str]]:
    """(s of each frame from the first where the header states them, notes)."""
    if len(shape) < 5 or not nifti_header.is_nifti(header):
        return None, []
    unit = SECONDS.get(header.get_xyzt_units()[1])
    step = float(header["pixdim"][4])
    if unit is None or not np.isfinite(step) or step <= 0:
        return None, ["The header does not state at what times the frames were taken."]
    odd = [f"The header states {step * unit:g} s between frames; perhaps ms are meant."] if step * unit > 600 else []
    return _voxel_files.even_times(step * unit, shape[1], where), odd


def b_value_table(path: Path, stem: str) -> Path:
    """The file in which FSL and BIDS keep the b-values of an image."""
    return path.with_name(f"{stem}.bval")


def read_b_values(path: Path, stem: str, frames: int | None) -> tuple[float, ...] | None:
    """The b-values in s/mm² of each frame, from the `.bval` that FSL and BIDS keep in the image's folder.

    None without such a file, or for an image without frames. Raises FormatError where it does not fit the image.
    """
    table = b_value_table(path, stem)
    if frames is None or not table.is_file():
        return None
    try:
        b_values = tuple(float(word) for word in table.read_text(encoding="utf-8").split())
    except ValueError as error:
        raise FormatError(
            f"holds a value that is not a number ({error})", str(table), "Write one b-value for each frame"
        ) from error
    if len(b_values) != frames or min(b_values) < 0:
        problem = f"has {len(b_values)} b-values for {frames} frames, or one below 0"
        raise FormatError(problem, str(table), "Write one b-value for each frame")
    return b_values


def stated_modality(path: Path, stem: str) -> tuple[str, tuple[Path, ...]]:
    """(modality, files that state it) by the `.json` of dcm2niix or BIDS in the image's folder; "unknown" without one.

    A record that cannot be read, or that names no modality of DICOM's, is another program's, and states nothing.
    """
    record = path.with_name(f"{stem}.json")
    if not record.is_file():
        return UNKNOWN_MODALITY, ()
    try:
        facts = structured_text.load_json(record, largest=LARGEST_SIDECAR)
    except (OSError, ValueError):
        return UNKNOWN_MODALITY, ()
    word = facts.get("Modality") if isinstance(facts, dict) else None
    if not isinstance(word, str) or word not in CODES:
        return UNKNOWN_MODALITY, ()
    return word, (record,)


class SoundHeader(NiftiHeader):
    """A header of a single file, without extensions, whose fields nibabel's checks pass; its methods are nibabel's."""

    is_single = True

    @classmethod
    def from_file_start(cls, head: bytes) -> Self | None:
        """The header at the start of a file; None where it is another one, or a check does not pass."""
        for version, kind in FIELDS.items():
            size = kind.itemsize
            for order in ORDERS:
                if len(head) < size + 4 or np.frombuffer(head, f"{order}i4", 1)[0] != size:
                    continue
                fields = np.frombuffer(head, kind.newbyteorder(order), 1)
                header = cls(version, fields.astype(kind).tobytes())
                header.order = order
                magic = bytes(fields["magic"][0])
                return header if magic == MAGIC[version] and not head[size] and header._is_sound else None
        return None

    order: Literal["<", ">"] = "<"

    @property
    def _is_sound(self) -> bool:
        count, sizes, steps = int(self["dim"][0]), self["dim"], self["pixdim"]
        units, offset = int(self["xyzt_units"]), int(self["vox_offset"])
        name = NAMES.get(int(self["datatype"]))
        square = 1.0 - sum(float(self[f"quatern_{part}"]) ** 2 for part in "bcd")
        return bool(
            name is not None
            and int(self["bitpix"]) == 8 * np.dtype(name).itemsize
            and 1 <= count < len(sizes)
            and (sizes[1 : count + 1] > 0).all()
            and tuple(sizes[1:4]) != FREESURFER
            and steps[0] in (-1, 1)
            and (np.isfinite(steps[1:4]) & (steps[1:4] > 0)).all()
            and (offset == 0 or (offset >= self.single_vox_offset and offset % ALIGNMENT == 0))
            and offset == self["vox_offset"]
            and {int(self["qform_code"]), int(self["sform_code"])} <= set(FORM_CODES)
            and (int(self["qform_code"]) == 0 or square >= SMALLEST_SQUARE[self.version])
            and units % 8 in OF_SPACE
            and units - units % 8 in OF_TIME
            and (self.version == 1 or tuple(self["eol_check"]) == END_OF_LINE)
        )

    @property
    def single_vox_offset(self) -> int:
        """The byte at which the voxels begin at the earliest."""
        return int(self.fields.dtype.itemsize) + 4

    @property
    def binaryblock(self) -> bytes:
        """Its bytes, little-endian."""
        return bytes(self.fields.tobytes())

    def as_byteswapped(self, endianness: str) -> Self:
        """Itself, because its fields are little-endian whatever the file's are."""
        return self

    def copy(self) -> Self:
        """Another one whose fields are its own."""
        other = copy(self)
        other.fields = self.fields.copy()
        return other

    def get_data_dtype(self) -> np.dtype[Any]:
        """The type of the voxels, as they stand in the file."""
        return np.dtype(NAMES[int(self["datatype"])]).newbyteorder(self.order)

    def get_data_shape(self) -> tuple[int, ...]:
        """The length of each axis, the fastest first."""
        return tuple(int(size) for size in self["dim"][1 : int(self["dim"][0]) + 1])

    def get_xyzt_units(self) -> tuple[str, str]:
        """The units of steps in space and in time."""
        units = int(self["xyzt_units"])
        return OF_SPACE[units % 8], OF_TIME[units - units % 8]

    def get_sform(self) -> np.ndarray:
        """(4, 4)"""
        return self.sform

    def get_qform(self) -> np.ndarray:
        """(4, 4)"""
        return self.qform


FACTS = (
    FactRule("NIfTI", "read", "modality in the JSON file beside it, b-values in its .bval"),
    FactRule("NIfTI", "named", "forms of several codes that differ, and units that are absent"),
    FactRule("NIfTI", "named", "directions of gradients in its .bvec"),
    FactRule("NIfTI", "refused", "a .bval with fewer or more values than frames"),
    FactRule("NIfTI", "refused", "points and triangles of surfaces, values on grey-ordinates (intent)"),
    *header_statements.FACTS,
    *_voxel_files.facts_beside("pairs of NIfTI"),
)
FORMAT = Format("nifti", read, nifti_writing.write, parts=_pair, facts=FACTS)


# NIfTI-MRS: a signal in time behind three axes of space, its frequencies in a header extension.
#
# https://wtclarke.github.io/mrs_nifti_standard, doi:10.1002/mrm.29418. Its frequencies are right-handed (Levitt): a
# resonance above that of the transmitter turns clockwise, so that the transform is that of the conjugate.


def is_spectrum(header: Any) -> bool:
    """Whether the intent of a header is that of NIfTI-MRS."""
    return nifti_header.is_nifti(header) and bytes(header["intent_name"].tobytes()).startswith(INTENT)


def read_spectrum(path: Path, name: str, options: ReadOptions) -> Mapping[str, Image]:
    """The spectrum of one voxel as a series in ppm; edits are channels.

    Raises FormatError for coils and repeats that were not combined, and without frequency; GeometryError for several
    voxels.
    """
    where = str(path)
    image: Any = nibabel.load(path)
    stated = _extension(image.header, where)
    shape = (*image.shape, *[1] * (7 - len(image.shape)))
    spectra.refuse_voxels(shape[:3], where)
    for place, size in enumerate(shape[4:]):
        kind = stated.get(f"dim_{place + 5}") or USUAL[place]
        if size > 1 and kind != EDITED:
            problem = f"{size} points of {kind} were not combined"
            raise FormatError(problem, where, "Combine coils and average repeats first, as with fsl_mrs_preproc")
    signal = np.asarray(image.dataobj, np.complex128).reshape(shape[3], -1).T
    unit = image.header.get_xyzt_units()[1]
    dwell = float(image.header["pixdim"][4]) * SECONDS.get(unit, 1.0)
    nucleus = _first(stated.get("ResonantNucleus"))
    reference = WATER_PPM if nucleus == "1H" else 0.0
    axis = SpectralAxis(
        1 / dwell if dwell > 0 else 0.0, _number(stated.get("SpectrometerFrequency")), reference, nucleus
    )
    spectrum = spectra.transform_signal(signal.conj())
    channels = tuple(f"edit {n + 1}" for n in range(len(spectrum))) if len(spectrum) > 1 else ()
    source = Source("nifti", (where,))
    return {name: spectra.spectrum_image(spectrum, axis, source, where, part=options.part, channels=channels)}


def _extension(header: Any, where: str) -> Mapping[str, PlainValue]:
    for extension in header.extensions:
        if extension.get_code() == EXTENSION:
            try:
                stated = structured_text.parse_json(extension.text if hasattr(extension, "text") else _text(extension))
            except ValueError as error:
                raise FormatError(f"its header extension is no JSON ({error})", where, "Get the file again") from error
            if isinstance(stated, dict):
                return stated
    raise FormatError("is NIfTI-MRS without the header extension of its frequencies", where, "Get the file again")


def _text(extension: Any) -> str:
    content = extension.get_content()
    return content.decode("utf-8", errors="replace").rstrip("\0 ") if isinstance(content, bytes) else str(content)


def _first(value: Any) -> str:
    return str(value[0]) if isinstance(value, list) and value else str(value or "")


def _number(value: Any) -> float:
    try:
        return float(_first(value))
    except ValueError:
        return float("nan")
