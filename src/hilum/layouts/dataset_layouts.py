"""The index of layouts, and reading a data set by it. A new layout is one file here and its line in `LAYOUTS`."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

from hilum import errors
from hilum.errors import DatasetError, HilumError, UsageError
from hilum.files import modality_words
from hilum.files.storage import structured_text
from hilum.layouts import dataset_rows, dataset_table, layout, manifest
from hilum.layouts.cases import (
    assembly,
    class_labels,
    frame_cases,
    object_classes,
    photo_orientation,
    table_reading,
)
from hilum.layouts.cases.dataset_folder import OWN_TABLE, PACKED, Folder
from hilum.layouts.cases.table_reading import SPREADSHEETS, TABLE_SUFFIXES, DataTable
from hilum.layouts.layout import LAYOUTS, DatasetOptions, Layout, Reading
from hilum.values import Dataset
from hilum.values.dataset_cases import DataFrameLike

WITHOUT_LABELS = "plain_images"
# The name of a table in memory, in errors.
FRAME = "table"
BY_ROWS = (
    "Or say it row by row: hilum check DATA --out FOLDER writes dataset.csv, a row for each case; correct it, and "
    "give it as DATA"
)
# {what a record in a folder of ours calls itself: (file, what the folder is)}; a run is known before it has any.
OURS = {
    "hilum.predictions": ("summary.json", "holds results of a prediction, which would be taken for images"),
    "hilum.summary": ("summary.json", "is an evaluation that hilum wrote, and no data set"),
    "hilum.model": ("model.json", "is a model of hilum, and no data set"),
}
RUN = ("plan.yaml", "split.csv", OWN_TABLE)


def read_dataset(path: str | Path, options: DatasetOptions | None = None) -> Dataset:
    """The data set in a folder, a table or an archive; images and references are read when they are asked for.

    Raises UsageError where the path does not exist, DatasetError where it cannot be understood or can be
    understood in several ways.
    """
    path, options = Path(path), options or DatasetOptions()
    declared = dataset_table.declarations_beside(path)
    options = _check_options(options if declared is None else dataset_table.complete_options(options, declared))
    if not path.exists():
        raise UsageError("there is no such file or folder", str(path), "Check the path")
    if problem := _made_by_us(path):
        remedy = "Give the folder of the images; a single result may be given by its file"
        if (own := path / OWN_TABLE).is_file():
            remedy = f"Give the folder of the images, or {own}, which names the cases"
        raise UsageError(problem, str(path), remedy)
    folder = Folder(path)
    if not folder.members:
        raise DatasetError("the folder is empty", str(path), "Choose the folder that holds the images")
    if declared is not None:
        written = dataset_table.table_as_written(path, declared)
        return _read_cases(folder, dataset_rows.read_rows(written, folder, declared, options), options)
    if options.root is not None and not folder.is_file:
        problem = "only the paths of a table or a DataFrame start from a folder"
        raise UsageError(problem, f"--root {options.root}", "Leave it out, or give the table as DATA")
    if (table := _table_by_hand(folder, options)) is not None:
        return _read_cases(Folder(table.path), dataset_rows.read_rows(table, Folder(table.path), {}, options), options)
    try:
        folder, chosen_layout = _unwrap(folder, options)
        return _read_cases(folder, object_classes.read_with_classes(chosen_layout.read, folder, options), options)
    except DatasetError as error:
        # What is wrong with one file is mended there; what a folder means can be said by its rows.
        if not Path(error.where).is_dir():
            raise
        raise error.stating(remedy=f"{error.remedy.rstrip('.')}. {BY_ROWS}") from error


def read_data_frame(frame: DataFrameLike, options: DatasetOptions | None = None) -> Dataset:
    """The data set in a table in memory, which is read as a CSV file is; paths start from the working folder.

    Raises what `read_dataset` raises of a table, and DatasetError for cells that no table can hold.
    """
    options = _check_options(options or DatasetOptions())
    place = (options.root or Path()).absolute() / FRAME
    codes = ("group", "label", options.patient, *map(options.column.get, ("patient", "id")))
    table, folder = dataset_table.table_in_memory(frame, place, codes), Folder(place)
    is_ours = dataset_rows.spells_rows(table) or {"image", "group"} <= {*table.columns}
    if is_ours and not options.column:
        return _read_cases(folder, dataset_rows.read_rows(table, folder, {}, options), options)
    return _read_cases(folder, manifest.read_frame(table, folder, options), options)


def _table_by_hand(folder: Folder, options: DatasetOptions) -> DataTable | None:
    """The only table, where it has the columns of `dataset.csv` and nothing says that it is to be read otherwise."""
    tables = [one for one in (folder.members if folder.is_file else folder.tables) if one.suffix in TABLE_SUFFIXES]
    if options.column or options.layout is not None or len(tables) != 1:
        return None
    table = table_reading.try_table(tables[0].path, codes=("group", "label"))
    return None if table is None or not dataset_rows.spells_rows(table) else replace(table, root=options.root)


def _check_options(options: DatasetOptions) -> DatasetOptions:
    """The options with the modality by its code, and the background that the labels declare; UsageError for no root."""
    if options.root is not None and not options.root.is_dir():
        raise UsageError("there is no such folder", f"--root {options.root}", "Check the path")
    modality = None if options.modality is None else modality_words.asked_modality(options.modality)
    background = class_labels.declared_background(options.labels) or options.read.background
    return replace(options, modality=modality, read=replace(options.read, background=background))


def _read_cases(folder: Folder, reading: Reading, options: DatasetOptions) -> Dataset:
    """The data set of these rows."""
    if options.references:
        reading = photo_orientation.on_upright_pixels(reading, options, folder.root)
    dataset = assembly.assemble_dataset(folder, reading, options)
    return frame_cases.split_into_frames(dataset) if options.references else dataset


def _made_by_us(path: Path) -> str:
    """What a folder is that a verb of ours has written, and that holds no data set; empty for any other."""
    if all((path / name).is_file() for name in RUN):
        return "is a run of hilum, and no data set"
    for schema, (name, what) in OURS.items():
        try:
            record = structured_text.load_json(path / name) if (path / name).is_file() else None
        except (OSError, ValueError):
            continue
        if isinstance(record, dict) and record.get("schema") == schema:
            return what
    return ""


def _unwrap(folder: Folder, options: DatasetOptions) -> tuple[Folder, Layout]:
    """The folder and its layout, or the one folder in it that holds all, where only that one has labels."""
    if options.column and not folder.is_file and not folder.tables and (inner := folder.inner) is not None:
        return _unwrap(Folder(inner), options)  # the columns are those of its table
    chosen_layout = _layout_of(folder, options)
    if chosen_layout.name != WITHOUT_LABELS or not options.references or (inner := folder.inner) is None:
        return folder, chosen_layout
    within, known = _unwrap(Folder(inner), options)
    return (folder, chosen_layout) if known.name == WITHOUT_LABELS else (within, known)


def _layout_of(folder: Folder, options: DatasetOptions) -> Layout:
    if options.layout is not None:
        if options.layout not in LAYOUTS:
            raise UsageError("is not a layout", f"--layout {options.layout}", f"Choose one of {', '.join(LAYOUTS)}")
        return layout.load_layout(options.layout)
    if options.column:  # columns are those of a table
        return layout.load_layout("manifest")
    fitting = [one for one in map(layout.load_layout, LAYOUTS) if one.fits(folder, options)]
    meant = [one for one in fitting if not any(one.name in other.over for other in fitting)]
    if len(meant) > 1:
        readings = "; ".join(_as_rows(one, folder, options) for one in meant)
        remedy = "Choose one with --layout NAME"
        remedy += "" if options.kinds else ", or say what is to be learnt by --task NAME"
        raise DatasetError(f"can be read in {len(meant)} ways ({readings})", str(folder.root), remedy)
    if not meant and (packed := [one.path.name for one in folder.members if one.path.name.lower().endswith(PACKED)]):
        problem = f"holds no image, only packed files ({errors.list_phrase(packed)})"
        raise DatasetError(problem, str(folder.root), "Unpack them, and name the folder")
    if not meant and (sheets := [one.path.name for one in folder.members if one.suffix in SPREADSHEETS]):
        problem = f"holds no image and no table that can be read, only {errors.list_phrase(sheets)}"
        raise DatasetError(problem, str(folder.root), "Save the table as CSV in UTF-8 (in Excel: CSV UTF-8)")
    if not meant:
        suffixes = sorted({member.suffix or "no suffix" for member in folder.members})
        files = f"{errors.count_phrase(len(folder.members), 'file')} of other kinds ({errors.list_phrase(suffixes)})"
        problem = f"holds no image and no table of images, only {files}"
        raise DatasetError(problem, str(folder.root), "Name the layout with --layout, or give a table of paths")
    return meant[0]


def _as_rows(candidate: Layout, folder: Folder, options: DatasetOptions) -> str:
    """A layout in words, with the first lines of the table that it would make of a folder."""
    try:
        lines = dataset_table.head_lines(candidate.read(folder, options).rows, folder.root)
    except HilumError as error:
        return f"{candidate.name}: {candidate.what}, which is refused ({error.problem})"
    return f"{candidate.name}: {candidate.what}, as in {' / '.join(lines)}"
