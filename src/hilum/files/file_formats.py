"""The index of file formats, and reading and writing by it. A new format is one file and its line in `FORMATS`."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from importlib.metadata import EntryPoint
from pathlib import Path, PurePath
from typing import Any, cast
from xml.etree import ElementTree

from hilum import errors, keywords, plugins
from hilum.errors import FormatError, HilumError, UsageError
from hilum.files import label_table
from hilum.files.format_options import Format, FormatEntry, ImageOptions, ReadOptions
from hilum.files.storage import atomic
from hilum.values import Image, Label, LazyMapping, argument_kinds

PACKED = (".gz", ".bz2", ".xz", ".zst", ".tar", ".tgz", ".zip", ".7z", ".rar")
VALUES = ("Geometry", "Image")  # by which their own errors are headed
# Suffixes of formats that cannot hold names of labels: a table of them is written next to the file.
WITH_TABLE = frozenset(
    {".nii.gz", ".nii", ".nrrd", ".mha", ".mhd", ".ome.tiff", ".ome.tif", ".tiff", ".tif", ".png", ".npy", ".csv"}
)
HEAD_BYTES = 544  # the farthest magic number: NIfTI-1 at 344, DICOM at 128, NIfTI-2 at 4

FORMATS: dict[str, FormatEntry] = {
    "nifti": FormatEntry(
        "hilum.files.nifti.nifti_reading:FORMAT",
        (".nii.gz", ".nii", ".hdr.gz", ".img.gz", ".hdr", ".img"),
        ((344, b"n+1\0"), (344, b"ni1\0"), (4, b"n+2\0"), (4, b"ni2\0")),
        detached=(".hdr.gz", ".img.gz", ".hdr", ".img"),
    ),
    "dicom": FormatEntry(
        "hilum.files.dicom.reading.dicom_reading:FORMAT", (".dcm", ".dicom", ".ima"), ((128, b"DICM"),)
    ),
    "nrrd": FormatEntry(
        "hilum.files.nrrd:FORMAT",
        (".seg.nrrd", ".nrrd", ".nhdr"),
        ((0, b"NRRD0"),),
        detached=(".nrrd", ".nhdr"),
    ),
    "metaimage": FormatEntry(
        "hilum.files.metaimage:FORMAT",
        (".mha", ".mhd"),
        ((0, b"ObjectType"), (0, b"NDims")),
        detached=(".mha", ".mhd"),
    ),
    "mgh": FormatEntry("hilum.files.mgh:FORMAT", (".mgz", ".mgh"), ()),
    "minc": FormatEntry("hilum.files.minc:FORMAT", (".mnc.gz", ".mnc"), ((0, b"CDF\x01"),)),
    "mif": FormatEntry(
        "hilum.files.mif:FORMAT",
        (".mif.gz", ".mif", ".mih"),
        ((0, b"mrtrix image"),),
        detached=(".mif", ".mih"),
    ),
    "parrec": FormatEntry("hilum.files.parrec:FORMAT", (".par", ".rec"), (), detached=(".par", ".rec")),
    "picture": FormatEntry(
        "hilum.files.pictures.plain_picture:FORMAT",
        (".png", ".jpeg", ".jpg", ".bmp", ".jp2", ".webp", ".gif"),
        ((0, b"\x89PNG\r\n\x1a\n"), (0, b"\xff\xd8\xff"), (0, b"BM"), (0, b"GIF8"), (0, b"P5\n"), (0, b"P6\n")),
    ),
    "slide": FormatEntry(
        "hilum.files.slides.openslide_reading:FORMAT",
        (".svs", ".ndpi", ".mrxs", ".scn", ".bif"),
        over=("tiff", "picture"),
    ),
    "tiff": FormatEntry(
        "hilum.files.pictures.tiff:FORMAT",
        (".ome.tiff", ".ome.tif", ".tiff", ".tif"),
        ((0, b"II*\0"), (0, b"MM\0*"), (0, b"II+\0")),
        detached=(".ome.tiff", ".ome.tif"),
    ),
    "numpy": FormatEntry("hilum.files.numpy_file:FORMAT", (".npy", ".npz"), ((0, b"\x93NUMPY"),)),
    "edf": FormatEntry("hilum.files.edf:FORMAT", (".edf",), ()),
    "series": FormatEntry("hilum.files.series:FORMAT", (".csv", ".tsv"), ()),
    "video": FormatEntry(
        "hilum.files.video:FORMAT",
        (".mp4", ".avi", ".mov", ".mkv"),
        ((4, b"ftyp"), (8, b"AVI "), (0, b"\x1aE\xdf\xa3")),
    ),
}


def format_entries() -> Mapping[str, FormatEntry]:
    """Our formats by name, and those that other packages add under the entry point `hilum.formats`."""
    return _entries(tuple(plugins.entry_points_of("hilum.formats").values()))


@cache  # asked for each file of a data set
def _entries(points: tuple[EntryPoint, ...]) -> Mapping[str, FormatEntry]:
    return FORMATS | {point.name: point.load() for point in points}


def load_format(name: str) -> Format:
    """The format of this name; its file is imported now."""
    return cast("Format", plugins.load_target(format_entries()[name].target))


def suffix_of(path: Path) -> str:
    """The longest suffix that some format knows, lower case; the plain one for another, none for the end of a UID."""
    suffixes = [s for entry in format_entries().values() for s in entry.suffixes if path.name.lower().endswith(s)]
    return max(suffixes, key=len, default="" if path.suffix[1:].isdigit() else path.suffix.lower())


def parts_of_file(path: Path) -> tuple[Path, ...]:
    """The file, and others in which its header says that the voxels stand; of a damaged one itself alone."""
    suffix = suffix_of(path)
    name = next((name for name, entry in format_entries().items() if suffix in entry.detached), None)
    if name is None:
        return (path,)
    try:
        return tuple(dict.fromkeys((path, *load_format(name).parts(path))))
    except (
        HilumError,
        OSError,
        ValueError,
        ElementTree.ParseError,
    ):  # whoever opens the image says what is wrong with it
        return (path,)


def format_of(path: Path) -> str | None:
    """The name of the format of an existing file (or folder of DICOM), None if no format knows it."""
    if path.is_dir():
        return "dicom"
    with path.open("rb") as file:
        head = file.read(HEAD_BYTES)
    suffix = suffix_of(path)
    named = next((name for name, entry in format_entries().items() if suffix in entry.suffixes), None)
    for name, entry in format_entries().items():
        if named is not None and name in format_entries()[named].over:
            continue
        if any(head[offset : offset + len(magic)] == magic for offset, magic in entry.magic):
            return name
    return named or ("dicom" if may_be_nameless_dicom(path.name) else None)


def may_be_nameless_dicom(name: str) -> bool:
    """Whether a file of this name may be DICOM: media have names without suffix, UIDs end in numbers."""
    suffix = PurePath(name).suffix
    return not suffix or suffix[1:].isdigit() or name == "DICOMDIR"


def read_volumes(path: str | Path, options: ReadOptions | None = None) -> Mapping[str, Image]:
    """All volumes of a file or of a folder of DICOM, by name; several where they lie on different grids.

    Raises UsageError where the path does not exist, FormatError where nothing can read it, GeometryError where the
    position of the voxels cannot be known.
    """
    path = Path(path)
    if not path.exists():
        raise UsageError("there is no such file or folder", str(path), "Check the path")
    name = format_of(path)
    if name is None:
        kinds = ", ".join(sorted(s for entry in format_entries().values() for s in entry.suffixes))
        remedy = "Unpack it first" if path.suffix.lower() in PACKED else f"Convert it to one of {kinds}"
        raise FormatError("the format is not known", str(path), remedy)
    options = options or ReadOptions()
    with _errors_named(path, name):
        volumes = load_format(name).read(path, options)
    if options.orientation is None and options.mm_per_pixel is None:
        return volumes
    return LazyMapping({name: partial(_as_stated, volumes, name, options) for name in volumes})


def _as_stated(volumes: Mapping[str, Image], name: str, options: ReadOptions) -> Image:
    """A volume with what a person states where its file does not."""
    return options.state_missing(volumes[name])


def references_in(path: Path) -> dict[str, Callable[[], Any]]:
    """{kind: function that reads it} of the references that an image's own file holds; its format says which."""
    holding = ((name, entry) for name, entry in format_entries().items() if entry.references)
    references = ((name, entry.references) for name, entry in holding if suffix_of(path) in entry.suffixes)
    return {kind: partial(_reference, path, name, kind) for name, kinds in references for kind in kinds}


def _reference(path: Path, name: str, kind: str) -> Any:
    with _errors_named(path, name):
        return load_format(name).references[kind](path)


@contextmanager
def _errors_named(path: Path, name: str) -> Iterator[None]:
    """Whatever a format raises becomes an error that names the file."""

    def damaged(error: Exception) -> FormatError:
        """The FormatError for what a library said of the file."""
        remedy = "The file is damaged or cut short: get it again"
        return FormatError(f"cannot be read as {name} ({errors.describe_cause(error)})", str(path), remedy)

    try:
        with errors.foreign_errors(damaged):
            yield
    except HilumError as error:
        if error.where not in VALUES:
            raise
        # A value that refuses itself where it is made cannot know the file.
        raise error.stating(where=str(path), remedy="The header is damaged: get the file again") from error


@keywords.takes(ImageOptions)
def read(options: ImageOptions) -> Image:
    """The image in a file or in a folder of DICOM.

    Volumes on one grid come as one Image with frames; `volume` picks one where grids differ.
    """
    return read_image(options.path, keywords.narrow_options(options, ReadOptions), options.volume)


def read_image(path: str | Path, options: ReadOptions, volume: str | None = None) -> Image:
    """The image in a file or in a folder of DICOM, as `read` returns it."""
    volumes = read_volumes(path, options)
    if volume is not None and volume not in volumes:
        raise UsageError(f"there is no volume {volume!r}", str(path), f"Choose one of {', '.join(volumes)}")
    if volume is None and len(volumes) > 1:
        raise FormatError(
            f"holds {len(volumes)} volumes on different grids: {', '.join(volumes)}",
            str(path),
            "Choose one with --volume NAME (volume=NAME in Python)",
        )
    return volumes[volume] if volume is not None else next(iter(volumes.values()))


def write(image: Image, path: str | Path, *, overwrite: bool = False) -> None:
    """The image in the format that the path's suffix names, whole or not at all.

    The names of a label map's values stand in a table next to it where the format has no place for them.
    Raises FormatError for what the format cannot hold, UsageError for an unknown suffix, an existing file and what is
    no image.
    """
    argument_kinds.fitting_argument("image", Image, image)
    path = Path(argument_kinds.fitting_argument("path", str | Path, path))
    suffix = suffix_of(path)
    name = next((name for name, entry in format_entries().items() if suffix in entry.suffixes), None)
    writer = load_format(name).write if name else None
    if writer is None:
        raise UsageError(
            f"{suffix or 'a name without suffix'} cannot be written", str(path), "Write .nii.gz, .nrrd, .png or .tiff"
        )
    with atomic.write_whole(path, overwrite=overwrite) as partial:
        try:
            writer(image, partial)
        except HilumError as error:
            if error.where != str(partial):
                raise
            # The caller knows the path that they gave, not the temporary one.
            raise error.stating(where=str(path)) from error
        if image.labels and suffix in WITH_TABLE:
            _write_names(image.labels, label_table.table_path(path), overwrite=overwrite)


def _write_names(labels: Sequence[Label], table: Path, *, overwrite: bool) -> None:
    """The table of a label map; one that is there and names the same values stays."""
    labels_before = label_table.read_labels(table) if table.is_file() and not overwrite else ()
    if label_table.label_names(labels_before) != label_table.label_names(labels):
        label_table.write_labels(labels, table, overwrite=overwrite)
