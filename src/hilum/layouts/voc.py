"""Pascal VOC: an XML file of boxes for each image, in its folder or in `Annotations/`.

`ImageSets/Main/*.txt` is the split.
Everingham et al., Int J Comput Vis 2010, doi:10.1007/s11263-009-0275-4
"""

from __future__ import annotations

from collections.abc import Collection, Mapping
from contextlib import suppress
from dataclasses import replace
from pathlib import Path
from xml.etree.ElementTree import Element, TreeBuilder
from xml.parsers import expat

from hilum.errors import DatasetError
from hilum.layouts.cases import annotation_files, dataset_folder, stated_lists, table_reading
from hilum.layouts.cases.annotated_boxes import AnnotatedBox, Annotation, UnreadObject
from hilum.layouts.cases.annotation_files import AnnotatedFolder, AnnotationFormat, Sidecar
from hilum.layouts.cases.dataset_folder import Folder, FolderMember
from hilum.layouts.cases.names import SPLIT_WORDS
from hilum.layouts.layout import BY_NAMES, DatasetOptions, Example, Layout, Reading
from hilum.values import FactRule, Split
from hilum.values.dataset_cases import SPLITS

FORMAT = AnnotationFormat("voc", "Pascal VOC", "boxes")
ROOT, TEST = "annotation", "test"
ENDS = ("min", "max")
LISTS = ("ImageSets", "Main")
XML_LIMIT = 16 << 20  # one image has some hundred boxes, of half a KiB each


def fits(folder: Folder, options: DatasetOptions) -> bool:
    """An XML file with the name of an image that starts as an annotation does."""
    named = () if folder.is_file else annotation_files.files_beside_images(folder, ".xml")[:1]
    small = [one.path for one in named if one.path.stat().st_size <= XML_LIMIT]
    return any(annotation_files.file_begins_with(path, b"<annotation") for path in small)


def read(folder: Folder, options: DatasetOptions) -> Reading:
    """A case for each image; one without a file is not labelled, a file without an object means that nothing is there.

    Raises DatasetError, by file, for damaged XML, for one that brings declarations of its own, and for an image in
    two parts of the split.
    """
    files, parts = {member: voc_sidecar(member.path) for member in _files(folder)}, _listed_parts(folder)
    reading = AnnotatedFolder(folder, options, FORMAT).read_sidecars(files, parts)
    if parts and options.references:
        there = {member.stem for member in (*folder.images, *_files(folder))}
        lists = stated_lists.list_problems("ImageSets/Main", list(parts), there, "image")
        reading = replace(reading, problems=(*reading.problems, *lists))
    return replace(reading, how=f"{reading.how}, split as in ImageSets/Main") if parts else reading


def voc_sidecar(path: Path) -> Sidecar:
    """The boxes of a file, those that cannot be read, and the name of its image as stated."""
    root = parse_xml(path)
    if root.tag != ROOT:
        raise _wrong(path, f"begins with <{root.tag}>", "Give annotations of Pascal VOC")
    boxes, unread = list[AnnotatedBox](), list[UnreadObject]()
    for number, item in enumerate(root.iter("object"), start=1):
        name, where = (item.findtext("name") or "").strip(), f"object {number}"
        try:
            boxes.append(_annotated_box(item, name, where))
        except ValueError as error:
            unread.append(UnreadObject.of_corners(f"{where}: {error}", name, _stated_corners(item)))
    size = None
    if (stated := root.find("size")) is not None:
        with annotation_files.refuse_unreadable(path, "its size cannot be read: {}", "Correct it"):
            size = annotation_files.stated_size(*(_number(stated, key) for key in ("width", "height")))
    return Sidecar(
        Annotation(path, tuple(boxes), size, unread=tuple(unread)), (root.findtext("filename") or "").strip()
    )


def _annotated_box(item: Element, name: str, where: str) -> AnnotatedBox:
    """The box of one object; ValueError where its name or a corner lacks or cannot be read.

    Corners are whole pixels counted from 1, both of them inside the box (VOC2012 development kit, section 4): the
    edges start one earlier, counted from 0.
    """
    box = item.find("bndbox")
    if not name or box is None:
        raise ValueError(f"it has no {'bndbox' if name else 'name'}")
    corners = [_number(box, key) for key in ("xmin", "ymin", "xmax", "ymax")]
    low, high = (corners[0], corners[1]), (corners[2], corners[3])
    # Equal corners are a click without a drag; the kit would call them one pixel.
    if low[0] < high[0] and low[1] < high[1]:
        low = (low[0] - 1, low[1] - 1)
    ignored = (item.findtext("difficult") or "0").strip() == "1"
    return AnnotatedBox(name, low, high, where, ignored)


def _stated_corners(item: Element) -> list[tuple[float, float]]:
    """The corners (x, y) of an object where all of them are numbers; else none."""
    if (box := item.find("bndbox")) is None:
        return []
    with suppress(ValueError):
        return [(_number(box, f"x{end}") - (end == "min"), _number(box, f"y{end}") - (end == "min")) for end in ENDS]
    return []


def parse_xml(path: Path) -> Element:
    """The root of an XML file; DatasetError for a damaged one.

    One with a document type is refused: entities in it could grow without end, or name files of this machine.
    """
    builder, parser = TreeBuilder(), expat.ParserCreate()

    def refuse(*declared: object) -> None:
        """Raise DatasetError for a document type."""
        raise _wrong(path, "brings a document type of its own (DOCTYPE)", "Remove that line")

    parser.StartDoctypeDeclHandler = refuse
    parser.StartElementHandler = builder.start
    parser.EndElementHandler = builder.end
    parser.CharacterDataHandler = builder.data
    try:
        if path.stat().st_size > XML_LIMIT:
            raise _wrong(path, "is larger than any annotation", "Give one file per image")
        parser.Parse(path.read_bytes(), True)
        return builder.close()
    except (expat.ExpatError, OSError, AssertionError, ValueError) as error:
        raise _wrong(path, f"cannot be read ({error})", "Get the file again") from error


def _files(folder: Folder) -> list[FolderMember]:
    return [] if folder.is_file else [member for member in folder.members if member.suffix == ".xml"]


def _listed_parts(folder: Folder) -> dict[str, Split]:
    """{name of an image: its part} as listed; what is only in trainval is for training."""
    parts: dict[str, Split] = {}
    stems = {member.stem for member in (*folder.images, *_files(folder))}
    lists = {m.stem.lower(): m.path for m in folder.members if m.suffix == ".txt" and m.path.parts[-3:-1] == LISTS}
    for word in (*SPLITS, "trainval"):
        path = lists.get(word)
        for line in path.read_text(encoding="utf-8").splitlines() if path is not None else ():
            name = _listed_name(line, stems)
            if not name:
                continue
            part = SPLIT_WORDS.get(word, parts.get(name, "train"))
            if parts.setdefault(name, part) != part or (word not in SPLIT_WORDS and part == TEST):
                raise _wrong(path, f"lists {name}, which is in {parts[name]} too", "Leave it in one of them")
    return parts


def _listed_name(line: str, stems: Collection[str]) -> str:
    """The image that a line lists: the whole line, which may hold blanks; else what stands before 1, -1 or 0.

    stems: the names of images and annotations, without suffix
    """
    whole = table_reading.compose_letters(line.strip())
    before = [whole.rsplit(maxsplit=1)[0], whole.split()[0]] if whole else []
    named = (one for text in (whole, *before) for one in (text, dataset_folder.stem_of(text)) if one in stems)
    return next(named, before[-1] if before else "")


def _number(parent: Element, key: str) -> float:
    text = parent.findtext(key)
    try:
        return float(text or "")
    except ValueError:
        raise ValueError(f"it has {text!r} as its {key}") from None


def _wrong(path: Path | None, problem: str, remedy: str) -> DatasetError:
    return DatasetError(problem, str(path), remedy)


EXAMPLE: Example = {f"images/a{n}.png": n for n in range(2)} | {
    f"images/a{n}.xml": "<annotation><object><name>cell</name><bndbox><xmin>3</xmin><ymin>4</ymin>"
    "<xmax>9</xmax><ymax>8</ymax></bndbox></object></annotation>"
    for n in range(2)
}
WHAT = "an XML file of boxes for each image, as in Pascal VOC"
FACTS = (
    FactRule("Pascal VOC", "read", "parts (ImageSets/Main), objects that are difficult"),
    FactRule("Pascal VOC", "named", "images of its lists that are not there, and images in none of them"),
    FactRule("Pascal VOC", "refused", "an image in two parts"),
)


def _of_file(path: Path, settings: Mapping[str, str]) -> Mapping[str, Annotation]:
    return {"": voc_sidecar(path).annotation}


LAYOUT = Layout("voc", WHAT, fits, read, BY_NAMES, EXAMPLE, _of_file, FACTS)
