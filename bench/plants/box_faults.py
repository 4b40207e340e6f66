"""Faults of pictures with boxes in Pascal VOC: what a file of boxes says of its picture, and lists of a part."""

from __future__ import annotations

import shutil
from dataclasses import dataclass
from pathlib import Path
from xml.etree import ElementTree

import PIL.Image

from .planted import Fault, Planted, Random, Wanted, pick
from .set_faults import differ_by_case, named
from .table_faults import look_at_table


@dataclass
class Boxes:
    """Pictures, a file of boxes for each, and the list of the part that trains."""

    folder: Path
    names: list[str]

    def xml(self, name: str) -> Path:
        """The boxes of a picture."""
        return self.folder / "Annotations" / f"{name}.xml"

    def picture(self, name: str) -> Path:
        """A picture."""
        return self.folder / "JPEGImages" / f"{name}.jpg"


def boxes_of(source: Path, folder: Path, rng: Random, count: int = 4) -> Boxes:
    """Some pictures of the published set of blood cells."""
    names = rng.sample(sorted(path.stem for path in (source / "Annotations").glob("*.xml")), count)
    made = Boxes(folder, sorted(names))
    for name in names:
        for place, suffix in (("Annotations", "xml"), ("JPEGImages", "jpg")):
            (folder / place).mkdir(parents=True, exist_ok=True)
            shutil.copyfile(source / place / f"{name}.{suffix}", folder / place / f"{name}.{suffix}")
    lists = folder / "ImageSets" / "Main"
    lists.mkdir(parents=True)
    (lists / "train.txt").write_text("".join(f"{name}\n" for name in made.names))
    return made


def change_size(boxes: Boxes, rng: Random) -> Wanted:
    """The picture is smaller than its file of boxes says, which was drawn on the larger one."""
    name = rng.choice(boxes.names)
    with PIL.Image.open(boxes.picture(name)) as opened:
        smaller = opened.resize((opened.width // 2, opened.height // 2))
    smaller.save(boxes.picture(name), quality=95)
    return Wanted(("refused", "named"), named(name, "size", "pixels", "edge", "beyond", "outside", "states"))


def turn_box(boxes: Boxes, rng: Random) -> Wanted:
    """A box ends before it begins."""
    name = rng.choice(boxes.names)
    tree = ElementTree.parse(boxes.xml(name))  # noqa: S314 - the set's own file
    box = rng.choice(tree.findall("object/bndbox"))
    low, high = (box.find(word) for word in ("xmin", "xmax"))
    assert low is not None and high is not None
    low.text, high.text = str(int(str(high.text)) + 3), low.text
    tree.write(boxes.xml(name))
    return Wanted(("refused", "named"), named(name, "box", "extent", "corner", "object"))


def move_box_outside(boxes: Boxes, rng: Random) -> Wanted:
    """A box lies outside of its picture."""
    name = rng.choice(boxes.names)
    tree = ElementTree.parse(boxes.xml(name))  # noqa: S314 - the set's own file
    box = rng.choice(tree.findall("object/bndbox"))
    for word in ("xmin", "xmax"):
        place = box.find(word)
        assert place is not None
        place.text = str(int(str(place.text)) + 2000)
    tree.write(boxes.xml(name))
    return Wanted(("refused", "named"), named(name, "box", "outside", "edge", "object"))


def cut_boxes(boxes: Boxes, rng: Random) -> Wanted:
    """A file of boxes ends early."""
    name = rng.choice(boxes.names)
    content = boxes.xml(name).read_bytes()
    boxes.xml(name).write_bytes(content[: int(len(content) * rng.uniform(0.2, 0.9))])

    def get_again(_: Path) -> None:
        boxes.xml(name).write_bytes(content)

    return Wanted(("refused", "named"), rf"\b{name}\b", (("again", get_again),))


def lose_boxes(boxes: Boxes, rng: Random) -> Wanted:
    """A listed picture has no file of boxes."""
    name = rng.choice(boxes.names)
    boxes.xml(name).unlink()
    return Wanted(("refused", "named"), rf"\b{name}\b")


def lose_picture(boxes: Boxes, rng: Random) -> Wanted:
    """A file of boxes has no picture."""
    name = rng.choice(boxes.names)
    boxes.picture(name).unlink()
    return Wanted(("refused", "named"), rf"\b{name}\b")


def list_too_many(boxes: Boxes, rng: Random) -> Wanted:
    """The list of a part names a picture that is not there."""
    listed = boxes.folder / "ImageSets" / "Main" / "train.txt"
    listed.write_text(listed.read_text() + "BloodImage_99999\n")
    return Wanted(("refused", "named"), "BloodImage_99999")


def list_twice(boxes: Boxes, rng: Random) -> Wanted:
    """A picture is listed in two parts."""
    name = rng.choice(boxes.names)
    listed = boxes.folder / "ImageSets" / "Main" / "test.txt"
    listed.write_text(f"{name}\n")
    return Wanted(("refused", "named"), rf"\b{name}\b|part", (("one of them", lambda _: listed.write_text("")),))


def spell_name(boxes: Boxes, rng: Random) -> Wanted:
    """One class is spelt in two ways."""
    name = rng.choice(boxes.names)
    content = boxes.xml(name).read_text()
    boxes.xml(name).write_text(content.replace("<name>RBC</name>", "<name>rbc</name>", 1))
    return Wanted(("same", "refused", "named"), "spel|rbc.*RBC|RBC.*rbc")


def copy_picture(boxes: Boxes, rng: Random) -> Wanted:
    """A picture lies there twice under two names."""
    name, twin = rng.choice(boxes.names), "BloodImage_90000"
    shutil.copyfile(boxes.picture(name), boxes.picture(twin))
    shutil.copyfile(boxes.xml(name), boxes.xml(twin))
    listed = boxes.folder / "ImageSets" / "Main" / "train.txt"
    listed.write_text(listed.read_text() + f"{twin}\n")
    boxes.names.append(twin)
    return Wanted(("refused", "named"), named(name, twin))


FAULTS = (
    Fault("a picture of another size", change_size),
    Fault("a box that ends before it begins", turn_box),
    Fault("a box outside", move_box_outside),
    Fault("a file of boxes cut", cut_boxes),
    Fault("a picture without boxes", lose_boxes),
    Fault("boxes without a picture", lose_picture),
    Fault("a listed picture that is not there", list_too_many),
    Fault("a picture in two parts", list_twice),
    Fault("two spellings of a class of boxes", spell_name),
    Fault("a picture twice", copy_picture),
)


def plant(source: Path, folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """One fault."""
    boxes = boxes_of(source, folder / "set", rng)
    fault = pick(FAULTS, boxes, rng)
    assert fault is not None
    wanted = fault.plant(boxes, rng)
    return [fault], Planted("bccd", boxes.folder, wanted, look_at_table, differ_by_case(boxes.names))
