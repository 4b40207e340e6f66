"""Faults of the table of a data set: its order, separators and codes, its rows, and what stands in its cells."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, fields
from pathlib import Path
from typing import Any

import numpy as np
import PIL.Image

import hilum
from hilum.errors import HilumError
from hilum.reading import ReadingOptions

from .planted import Array, Fault, Planted, Random, Right, Seen, Wanted, pick

OPTIONS = {one.name for one in fields(ReadingOptions)}
CLASSES = ("benign", "malignant")
Row = dict[str, str]


@dataclass
class Sheet:
    """A table as a program writes it: its cells, and how they are written.

    truth: {case: what is known of it} by construction
    """

    columns: list[str]
    rows: list[Row]
    truth: dict[str, dict[str, Any]]
    separator: str = ","
    encoding: str = "utf-8"
    newline: str = "\n"
    quoted: bool = False
    decimal: str = "."
    above: list[str] = field(default_factory=list)
    below: list[str] = field(default_factory=list)

    def content(self) -> bytes:
        """The bytes of the file."""
        lines = [self.separator.join(self.cell(name) for name in self.columns)]
        lines += [self.separator.join(self.cell(row[name]) for name in self.columns) for row in self.rows]
        return self.newline.join([*self.above, *lines, *self.below, ""]).encode(self.encoding)

    def cell(self, text: str) -> str:
        """A cell, between quotation marks where it has to be."""
        if self.decimal == "," and is_number(text):
            text = text.replace(".", ",")
        needs = self.quoted or self.separator in text or '"' in text
        return '"' + text.replace('"', '""') + '"' if needs else text


def known_ages(sheet: Sheet) -> list[Row]:
    """The rows whose age is a number still."""
    return [row for row in sheet.rows if is_number(row["age"])]


def is_number(text: str) -> bool:
    """Whether a cell is a number with a point."""
    return "." in text and text.replace(".", "", 1).lstrip("-").isdigit()


def sheet_of(pictures: list[Array], folder: Path, rng: Random) -> Sheet:
    """Real pictures, and a table with what a clinic might know of them."""
    folder.mkdir(parents=True)
    rows, truth = [], {}
    first = rng.randrange(1, 40)
    for n, picture in enumerate(pictures):
        name = f"{first + n:04d}"
        PIL.Image.fromarray(picture).save(folder / f"{name}.png")
        patient, age = f"{(first + n) // 2:05d}", f"{rng.uniform(20, 80):.1f}"
        row = {
            "image": f"{name}.png",
            "class": CLASSES[n % 2],
            "patient": patient,
            "age": age,
            "sex": "FM"[(first + n) // 2 % 2],
            "height": f"{rng.uniform(1.5, 1.95):.2f}",
        }
        rows.append(row)
        truth[name] = {"class": row["class"], "patient": patient, "age": float(age), "height": float(row["height"])}
    return Sheet(list(rows[0]), rows, truth)


def look_at_table(path: Path, options: Mapping[str, Any]) -> Seen:
    """What `check` reads from the table, and what it finds."""
    known = {name: value for name, value in options.items() if name in OPTIONS}
    try:
        checked = hilum.check(path, **known)
    except HilumError as error:
        return Seen(None, f"{error.where}: {error.problem}", error.remedy, "" if error.remedy else "no remedy")
    values = {
        case.id: {"class": case.references.get("class"), "patient": case.patient, **case.covariates}
        for case in checked.dataset.cases
    }
    found = [f"{one.severity}: {one.what} [{', '.join(one.cases)}] {one.why}" for one in checked.problems]
    words = "\n".join([*found, *(f"{name}: {value}" for name, value in checked.facts.items())])
    if not checked.passed:  # the command ends with 1, and nobody trains on it
        return Seen(None, words, " ".join(one.remedy for one in checked.problems if one.severity == "error"))
    return Seen(values, words)


def differ_from_rows(truth: Mapping[str, Mapping[str, Any]]) -> Any:
    """A comparison with what is known of each case."""

    def differ(values: Mapping[str, Mapping[str, Any]], wanted: Wanted) -> str:
        if set(values) != set(truth):
            return f"cases {sorted(set(values) ^ set(truth))[:4]} more or less"
        for case, row in truth.items():
            for name, value in row.items():
                read = values[case].get(name)
                read = getattr(read, "value", read)
                if not same_cell(value, read):
                    return f"{case}: {name} {read!r} in place of {value!r}"
        return ""

    return differ


def same_cell(value: Any, read: Any) -> bool:
    """Whether a cell is as it was written."""
    if value is None:
        return read is None or (isinstance(read, float) and math.isnan(read))
    if isinstance(value, float):
        return isinstance(read, int | float) and math.isclose(value, read, rel_tol=1e-6)
    return str(read) == value


def shuffle_rows(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Rows in another order."""
    rng.shuffle(sheet.rows)
    return Wanted(("same",))


def shuffle_columns(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Columns in another order."""
    rng.shuffle(sheet.columns)
    return Wanted(("same",))


def change_separator(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Semicolons or tabs part the cells."""
    sheet.separator = rng.choice(";\t")
    return Wanted(("same",))


def write_decimal_commas(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Numbers with commas, in a table that semicolons or tabs part."""
    sheet.separator, sheet.decimal = rng.choice(";\t"), ","
    return Wanted(("same",))


def quote_decimal_commas(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Numbers with commas between quotation marks, in a table that commas part."""
    sheet.decimal = ","
    return Wanted(("same", "refused", "named"), "comma|decimal|age|height")


def change_encoding(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Another encoding of text, with letters that differ in it."""
    sheet.encoding = rng.choice(("utf-8-sig", "utf-16", "cp1252", "utf-16-le"))
    patient = sheet.rows[0]["patient"]
    for row in sheet.rows:
        if row["patient"] == patient:
            row["patient"] = "Müller"
            sheet.truth[row["image"][:-4]]["patient"] = "Müller"

    def save_as_utf8(path: Path) -> None:
        sheet.encoding = "utf-8"
        path.write_bytes(sheet.content())

    right: tuple[Right, ...] = ("same",) if sheet.encoding == "utf-8-sig" else ("same", "refused")
    return Wanted(right, "", (("UTF-8", save_as_utf8),))


def change_line_ends(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Line ends of other systems, blank lines at the end, quotation marks around all."""
    sheet.newline = rng.choice(("\r\n", "\r", "\n"))
    sheet.quoted = rng.random() < 0.5
    if not sheet.quoted:
        sheet.below = [rng.choice(("", sheet.separator * (len(sheet.columns) - 1)))] * rng.randint(1, 3)
    return Wanted(("same",))


def pad_cells(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Blanks before or behind what stands in cells."""
    name = rng.choice(("class", "age", "patient"))
    for row in rng.sample(sheet.rows, 3):
        row[name] = rng.choice((f" {row[name]}", f"{row[name]} ", f"{row[name]}\u00a0"))
    return Wanted(("same",))


def lose_zeros(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A spreadsheet has made numbers of the names of images."""
    for row in sheet.rows:
        row["image"] = str(int(row["image"][:-4]))
    return Wanted(("same", "refused", "named"), "image|name|case|zero", (("path|name|file", restore_names(sheet)),))


def name_without_suffix(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Names of images lack their suffix."""
    for row in sheet.rows:
        row["image"] = row["image"][:-4]
    return Wanted(("same", "refused"), "", (("path|name|file|suffix", restore_names(sheet)),))


def restore_names(sheet: Sheet) -> Callable[[Path], None]:
    """The names as the files have them."""

    def restore(path: Path) -> None:
        for row in sheet.rows:
            row["image"] = f"{int(row['image'].removesuffix('.png')):04d}.png"
        path.write_bytes(sheet.content())

    return restore


def double_row(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A row stands there twice."""
    row = rng.choice(sheet.rows)
    sheet.rows.insert(rng.randrange(len(sheet.rows)), dict(row))
    return Wanted(("same", "refused", "named"), row["image"][:-4], removal_of(sheet))


def contradict_row(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Two rows of one image do not agree on its class."""
    row = rng.choice(sheet.rows)
    other = dict(row)
    other["class"] = CLASSES[1 - CLASSES.index(row["class"])]
    sheet.rows.insert(rng.randrange(len(sheet.rows)), other)
    return Wanted(("refused", "named"), row["image"][:-4], removal_of(sheet, other))


def removal_of(sheet: Sheet, other: Row | None = None) -> tuple[Any, ...]:
    """The table without the row that is too much, where a remedy asks for it."""

    def remove(path: Path) -> None:
        seen: set[str] = set()
        kept = []
        for row in sheet.rows:
            if row is not other and (other is not None or row["image"] not in seen):
                kept.append(row)
            seen.add(row["image"])
        sheet.rows = kept
        path.write_bytes(sheet.content())

    return ((r"once|one row|twice|remove|delete|leave|keep|correct|differ|same", remove),)


def spell_class(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """One class is spelt in two ways."""
    row = rng.choice(sheet.rows)
    row["class"] = rng.choice((row["class"].upper(), row["class"].capitalize()))
    return Wanted(
        ("same", "refused", "named"),
        f"spel|{row['class']}.*{row['class'].lower()}|{row['class'].lower()}.*{row['class']}",
    )


def mix_units(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """One height is in centimetres where the others are in metres."""
    row = rng.choice(sheet.rows)
    row["height"] = f"{float(row['height']) * 100:.1f}"
    return Wanted(("refused", "named"), f"height.*{row['height'].removesuffix('.0')}|height.*unit|height.*magnitude")


def code_missing(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A number that means that there is none."""
    row, code = rng.choice(sheet.rows), rng.choice(("-999", "-9", "9999"))
    name = rng.choice(("age", "height"))
    row[name] = code
    return Wanted(("refused", "named"), f"{name}.*{code}")


def write_missing(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A word that means that there is no number."""
    row = rng.choice(sheet.rows)
    row["age"] = rng.choice(("NA", "", "n/a", "nan", "N/A"))
    sheet.truth[row["image"][:-4]]["age"] = None
    return Wanted(("same",))


def write_word_for_number(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A word among numbers that is no usual one for missing."""
    row = rng.choice(sheet.rows)
    row["age"] = rng.choice(("see chart", "x", "4O.2", "40-50", "?"))
    return Wanted(("refused", "named"), "age")


def add_unnamed(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A column without a name that counts the rows, as pandas writes it."""
    sheet.columns = ["", *sheet.columns]
    for number, row in enumerate(sheet.rows):
        row[""] = str(number)
    return Wanted(("same",))


def merge_cells(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A patient stands in the first of the rows that are theirs, as cells that were merged come out."""
    before = ""
    for row in sheet.rows:
        row["patient"], before = ("" if row["patient"] == before else row["patient"]), row["patient"]
    return Wanted(("same", "refused", "named"), "patient")


def add_title(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A title stands above the names of columns."""
    sheet.above = [rng.choice(("Export of 3 May 2024", f"Study 12{sheet.separator * (len(sheet.columns) - 1)}"))]

    def remove(path: Path) -> None:
        sheet.above = []
        path.write_bytes(sheet.content())

    return Wanted(("same", "refused"), "", (("first line|name each column|title|above", remove),))


def double_column(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Two columns have one name, and do not agree."""
    name = rng.choice(("class", "patient"))
    sheet.columns = [*sheet.columns, f"{name} "]
    for row in sheet.rows:
        row[f"{name} "] = rng.choice(sheet.rows)[name]
    # The blank behind a name is no difference that a person sees.
    return Wanted(("refused", "named"), name)


def lose_image(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A row names an image that is not there."""
    row = rng.choice(sheet.rows)
    (folder / row["image"]).unlink()
    return Wanted(("refused", "named"), row["image"][:-4])


def lose_row(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """An image lies there that no row names."""
    row = sheet.rows.pop(rng.randrange(len(sheet.rows)))
    del sheet.truth[row["image"][:-4]]
    return Wanted(("same", "refused", "named"), row["image"][:-4])


def write_numbers_as_numbers(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Whole numbers have a decimal place, as a column with gaps comes out of pandas."""
    for row in known_ages(sheet):
        age = f"{round(float(row['age']))}"
        row["age"] = f"{age}.0"
        sheet.truth[row["image"][:-4]]["age"] = float(age)
    return Wanted(("same",))


def add_lines(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A cell of free text with line ends, separators and quotation marks."""
    sheet.columns = [*sheet.columns, "remark"]
    for row in sheet.rows:
        row["remark"] = ""
    rng.choice(sheet.rows)["remark"] = f'seen{sheet.separator} "again"'
    return Wanted(("same",))


def split_patient(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """The table's own parts have a patient on two sides."""
    sheet.columns = [*sheet.columns, "split"]
    patients = [row["patient"] for row in sheet.rows]
    torn = next(patient for patient in patients if patients.count(patient) > 1)
    for number, row in enumerate(sheet.rows):
        row["split"] = "train" if patients.index(row["patient"]) < len(patients) // 2 else "test"
        if row["patient"] == torn:
            row["split"] = ("train", "test")[number % 2]

    def mend(path: Path) -> None:
        for row in sheet.rows:
            row["split"] = "train" if row["patient"] == torn else row["split"]
        path.write_bytes(sheet.content())

    return Wanted(("refused", "named"), f"part|split|{torn}", (("split", mend),))


def write_powers(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Numbers with powers of ten, as some programs write them."""
    for row in known_ages(sheet):
        row["age"] = f"{float(row['age']):.3E}"
    return Wanted(("same",))


def point_backwards(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Paths as Windows writes them."""
    (folder / "pictures").mkdir()
    for row in sheet.rows:
        (folder / row["image"]).rename(folder / "pictures" / row["image"])
        row["image"] = f"pictures\\{row['image']}"
    return Wanted(("same", "refused"), "")


def repeat_header(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """The names of columns stand again among the rows, as of two exports in one file."""
    sheet.rows.insert(rng.randrange(1, len(sheet.rows)), {name: name for name in sheet.columns})
    return Wanted(("same", "refused", "named"), r"\bimage\b")


def add_total(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A line that counts the rows stands below them."""
    cells = ["Total", str(len(sheet.rows)), *[""] * (len(sheet.columns) - 2)]
    sheet.below = [sheet.separator.join(cells)]
    return Wanted(("same", "refused", "named"), "Total|row_")


def spell_patient(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A patient's number lacks its zeros in one row."""
    patients = [row["patient"] for row in sheet.rows]
    row = next(row for row in sheet.rows if patients.count(row["patient"]) > 1)
    whole = row["patient"]
    row["patient"] = str(int(whole))

    def mend(path: Path) -> None:
        row["patient"] = whole
        path.write_bytes(sheet.content())

    words = rf"patient[^\n]*\b{row['image'][:-4]}\b"
    return Wanted(("same", "refused", "named"), words, (("one|spell|write|correct", mend),))


def contradict_patient(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Two rows of one patient state another sex."""
    patients = [row["patient"] for row in sheet.rows]
    torn = next(patient for patient in patients if patients.count(patient) > 1)
    first = next(row for row in sheet.rows if row["patient"] == torn)
    first["sex"] = "M" if first["sex"] == "F" else "F"
    return Wanted(("refused", "named"), r"sex")


def lose_class(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """A class is blank."""
    row = rng.choice(sheet.rows)
    row["class"] = ""
    return Wanted(("refused", "named"), rf"{row['image'][:-4]}|class|label")


def cut_table(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """The file ends within its last row."""
    row = sheet.rows[-1]
    sheet.rows = sheet.rows[:-1]
    sheet.below = [sheet.separator.join((row["image"], row["class"][:3]))]
    return Wanted(("refused", "named"), rf"{row['image'][:-4]}|{row['class'][:3]}\b|cut|columns")


def write_thousands(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Numbers above a thousand with a mark between, in quotation marks."""
    sheet.columns = [*sheet.columns, "volume"]
    for row in sheet.rows:
        number = rng.randrange(1000, 9999)
        row["volume"] = f"{number:,}"
        sheet.truth[row["image"][:-4]]["volume"] = float(number)
    sheet.quoted = True
    return Wanted(("same", "refused", "named"), "volume")


def write_dates_both_ways(sheet: Sheet, folder: Path, rng: Random) -> Wanted:
    """Dates with the day first, and one with the month first."""
    sheet.columns = [*sheet.columns, "examined"]
    for row in sheet.rows:
        row["examined"] = f"{rng.randint(13, 28)}/{rng.randint(1, 12):02d}/2023"
    rng.choice(sheet.rows)["examined"] = f"{rng.randint(1, 12):02d}/{rng.randint(13, 28)}/2023"
    return Wanted(("refused", "named"), "examined")


HARMLESS = (
    Fault("rows in another order", shuffle_rows),
    Fault("columns in another order", shuffle_columns),
    Fault("another separator", change_separator),
    Fault("decimal commas", write_decimal_commas),
    Fault("decimal commas in quotation marks", quote_decimal_commas),
    Fault("another encoding", change_encoding),
    Fault("other line ends", change_line_ends),
    Fault("blanks in cells", pad_cells),
    Fault("words for missing", write_missing),
    Fault("a column without a name", add_unnamed),
    Fault("whole numbers with a decimal place", write_numbers_as_numbers),
    Fault("free text with separators", add_lines),
    Fault("numbers with powers of ten", write_powers),
)
BREAKING = (
    Fault("names without zeros", lose_zeros),
    Fault("names without a suffix", name_without_suffix),
    Fault("a row twice", double_row),
    Fault("rows that contradict", contradict_row),
    Fault("two spellings of a class", spell_class),
    Fault("a value in another unit", mix_units),
    Fault("a number for missing", code_missing),
    Fault("a word among numbers", write_word_for_number),
    Fault("merged cells", merge_cells),
    Fault("a title above the table", add_title),
    Fault("two columns of one name", double_column),
    Fault("a row without its image", lose_image),
    Fault("an image without a row", lose_row),
    Fault("a patient in two parts", split_patient),
    Fault("paths of Windows", point_backwards),
    Fault("names of columns among the rows", repeat_header),
    Fault("a total below the rows", add_total),
    Fault("a patient spelt in two ways", spell_patient),
    Fault("a patient of two sexes", contradict_patient),
    Fault("a class that is blank", lose_class),
    Fault("a table cut", cut_table),
    Fault("thousands with a mark", write_thousands),
    Fault("dates both ways", write_dates_both_ways),
)


def plant(source: str, pictures: list[Array], folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """One fault, or in three of ten draws one and another that keeps the values."""
    place = folder / "set"
    sheet = sheet_of(pictures, place, rng)
    first = pick((*HARMLESS, *BREAKING), sheet, rng)
    assert first is not None
    second = pick(HARMLESS, sheet, rng, [first]) if rng.random() < 0.3 else None
    chosen = [fault for fault in (first, second) if fault is not None]
    wanted = Wanted(("same",))
    # Lines below and above are written with the separator of the rest; blanks come last, for others look for a cell.
    order = [*HARMLESS, *BREAKING]
    for fault in sorted(chosen, key=lambda one: (one.plant in (pad_cells, add_unnamed), order.index(one))):
        wanted = wanted.beside(fault.plant(sheet, place, rng))
    (place / "table.csv").write_bytes(sheet.content())
    return chosen, Planted(source, place / "table.csv", wanted, look_at_table, differ_from_rows(sheet.truth))


def small_picture(path: Path, side: int = 40) -> Array:
    """The middle of a real picture, of eight bits."""
    with PIL.Image.open(path) as opened:
        picture = opened.convert("L" if opened.mode in ("L", "I", "I;16", "F") else "RGB")
    values = np.asarray(picture)
    top, left = (max(0, (size - side) // 2) for size in values.shape[:2])
    return values[top : top + side, left : left + side]
