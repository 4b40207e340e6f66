"""Damaged files by number: each number names one file of a corpus and what was changed in it, always the same."""

from __future__ import annotations

import gzip
import io
import random
import re
import struct
import warnings
import zipfile
import zlib
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.dataelem import RawDataElement
from pydicom.dataset import Dataset
from pydicom.tag import BaseTag

from hilum.files import file_formats

# Numbers at which programs go wrong: none, the ends of their ranges, more than there is.
NUMBERS = (0, 1, -1, 2, 255, 256, 32767, 32768, 65535, 65536, 0x7FFFFFFF, 0x80000000, 0xFFFFFFFF, 0x7FFFFFFFFFFFFFFF)
WORDS = (b"0", b"-1", b"1e308", b"nan", b"inf", b"2000000000", b"99999999999999999999", b"", b"../../x", b"\0", b"%d")
# A damaged length lets a text swallow what stands behind it: so many words of it, at most.
MOST_WORDS = 1 << 16
LONGEST_SHORT = (1 << 16) - 2  # bytes of a value whose VR has a length of two bytes
# Most of what a program believes stands at the start of a file.
HEAD = 2048
COMPANIONS = {".hdr": (".img",), ".img": (".hdr",), ".par": (".rec",), ".rec": (".par",), ".mhd": (".raw",)}
# DICOM is many formats in one.
WEIGHTS = {"dicom .dcm": 15, "dicom ": 4, "tiff .tif": 3, "nifti .nii.gz": 2}
PNG = b"\x89PNG\r\n\x1a\n"


@dataclass(frozen=True)
class Mutant:
    """One damaged file: the whole one that it stems from, its bytes, and the files that belong to it."""

    number: int
    source: Path
    content: bytes
    companions: tuple[Path, ...] = ()

    @property
    def name(self) -> str:
        """The file's name, which says of what format it was."""
        return self.source.name

    def written(self, folder: Path) -> Path:
        """The file in a folder, with those that belong to it."""
        for one in self.companions:
            (folder / one.name).write_bytes(one.read_bytes())
        (folder / self.name).write_bytes(self.content)
        return folder / self.name


@dataclass(frozen=True)
class Corpus:
    """Whole files by format; each format is chosen as often as any other, however many files it has."""

    files: dict[str, tuple[Path, ...]]

    @classmethod
    def below(cls, folders: Sequence[Path], largest: int) -> Corpus:
        """The image files of at most so many bytes in some folders and below them."""
        kinds: dict[str, list[Path]] = {}
        for folder in folders:
            for path in sorted(path for path in folder.rglob("*") if path.is_file()):
                if 0 < path.stat().st_size <= largest and (name := file_formats.format_of(path)):
                    kinds.setdefault(f"{name} {file_formats.suffix_of(path)}", []).append(path)
        return cls({kind: tuple(paths) for kind, paths in sorted(kinds.items())})

    def mutant(self, number: int) -> Mutant:
        """The damaged file of this number."""
        rng = random.Random(number)  # noqa: S311 - chance, no secret
        kinds = list(self.files)
        kind = rng.choices(kinds, [WEIGHTS.get(one, 1) for one in kinds])[0]
        source = rng.choice(self.files[kind])
        content = _changed(source.read_bytes(), rng, self.files[kind])
        others = COMPANIONS.get(source.suffix.lower(), ())
        siblings = [one for one in source.parent.glob(f"{source.stem}.*") if one.suffix.lower() in others]
        return Mutant(number, source, content, tuple(siblings))


def _changed(content: bytes, rng: random.Random, others: Sequence[Path]) -> bytes:
    """The content with one to three changes; of a packed file often within what is packed."""
    if content[:2] == b"\x1f\x8b" and rng.random() < 0.7:
        try:
            plain = gzip.decompress(content)
        except (OSError, EOFError, zlib.error):  # broken files are part of the corpus
            return _damaged(content, rng, others)
        return gzip.compress(_damaged(plain, rng, ()), 1, mtime=0)
    if content[:4] == b"PK\x03\x04" and rng.random() < 0.7:
        return _archive_changed(content, rng)
    if content[128:132] == b"DICM" and rng.random() < 0.5:
        return _attributes_changed(content, rng)
    if content.startswith(PNG) and rng.random() < 0.7:
        return _with_check_sums(_damaged(content, rng, others))
    return _damaged(content, rng, others)


def _attributes_changed(content: bytes, rng: random.Random) -> bytes:
    """A DICOM object with other values in one or two attributes, wherever in it they stand."""
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            dataset = pydicom.dcmread(io.BytesIO(content), force=True)
            for _ in range(rng.choice((1, 1, 2))):
                inside, tag = rng.choice(list(_attributes(dataset)))
                raw = inside.get_item(tag)
                if not isinstance(raw, RawDataElement):
                    del inside[tag]
                    continue
                swallowed = b"T1 Doe^Jane 4711 " * rng.choice((4, 256, MOST_WORDS // 4))
                value = rng.choice((rng.choice(WORDS), _damaged((raw.value or b"")[:HEAD], rng, ()), swallowed))
                value += b" " * (len(value) % 2)
                # Only a VR with a length of four bytes holds the longest.
                vr = "UT" if len(value) > LONGEST_SHORT and raw.VR != "SQ" else raw.VR
                inside._dict[tag] = raw._replace(VR=vr, value=value, length=len(value))
            written = io.BytesIO()
            dataset.save_as(written, enforce_file_format=False)
    except Exception:  # what cannot be taken apart or put together again is damaged as bytes
        return _damaged(content, rng, ())
    return written.getvalue()


def _attributes(dataset: Dataset) -> Iterator[tuple[Dataset, BaseTag]]:
    """(the data set that holds it, tag) of each attribute but the pixels, those in sequences too."""
    for tag in list(dataset.keys()):
        if tag.group == 0x7FE0:
            continue
        yield dataset, tag
        if dataset.get_item(tag).VR == "SQ":
            for item in list(dataset[tag].value)[:4]:
                yield from _attributes(item)


def _with_check_sums(content: bytes) -> bytes:
    """A PNG whose chunks have the check sums that belong to them, so that a decoder looks at what they hold."""
    parts, at = [content[:8]], 8
    while at + 12 <= len(content):
        length = int.from_bytes(content[at : at + 4], "big")
        body = content[at + 4 : at + 8 + length]
        parts += [content[at : at + 4], body, struct.pack(">I", zlib.crc32(body))]
        at += 12 + length
    return b"".join([*parts, content[at:]])


def _archive_changed(content: bytes, rng: random.Random) -> bytes:
    with zipfile.ZipFile(io.BytesIO(content)) as archive:
        members = {info: archive.read(info) for info in archive.infolist()}
    damaged = rng.choice(list(members))
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=1) as archive:
        for info, plain in members.items():
            archive.writestr(info.filename, _damaged(plain, rng, ()) if info is damaged else plain)
    return packed.getvalue()


def _damaged(content: bytes, rng: random.Random, others: Sequence[Path]) -> bytes:
    changed = bytearray(content)
    for _ in range(rng.choice((1, 1, 1, 2, 3))):
        rng.choice(CHANGES)(changed, rng)
    if others and rng.random() < 0.05:  # the start of one file before the end of another
        end = rng.choice(others).read_bytes()
        at = rng.randrange(min(len(changed), len(end)) + 1)
        changed = changed[:at] + end[at:]
    return bytes(changed)


def _place(changed: bytearray, rng: random.Random) -> int:
    end = len(changed) if rng.random() < 0.3 else min(HEAD, len(changed))
    return rng.randrange(end) if end else 0


def _flip_bits(changed: bytearray, rng: random.Random) -> None:
    for _ in range(rng.choice((1, 1, 4, 32)) if changed else 0):
        changed[_place(changed, rng)] ^= 1 << rng.randrange(8)


def _set_bytes(changed: bytearray, rng: random.Random) -> None:
    at, count = _place(changed, rng), rng.choice((1, 2, 4, 16))
    changed[at : at + count] = bytes(rng.choice((0, 255, rng.randrange(256))) for _ in range(count))


def _set_number(changed: bytearray, rng: random.Random) -> None:
    size, order = rng.choice(((2, "h"), (4, "i"), (8, "q"))), rng.choice("<>")
    width, kind = size
    at = _place(changed, rng) // width * width
    number = rng.choice(NUMBERS) & ((1 << (8 * width)) - 1)
    changed[at : at + width] = struct.pack(f"{order}{kind.upper()}", number)


def _set_float(changed: bytearray, rng: random.Random) -> None:
    at, order = _place(changed, rng) // 4 * 4, rng.choice("<>")
    value = rng.choice((float("nan"), float("inf"), -1.0, 0.0, 3e38, 1e-38))
    changed[at : at + 4] = struct.pack(f"{order}f", value)


def _set_word(changed: bytearray, rng: random.Random) -> None:
    """A number that stands as text becomes another one."""
    found = [one.span() for one in re.finditer(rb"\d+(\.\d+)?", changed[:HEAD])]
    if found:
        start, end = rng.choice(found)
        changed[start:end] = rng.choice(WORDS)


def _cut(changed: bytearray, rng: random.Random) -> None:
    del changed[rng.randrange(len(changed) + 1) :]


def _remove(changed: bytearray, rng: random.Random) -> None:
    at = _place(changed, rng)
    del changed[at : at + rng.choice((1, 2, 8, 512))]


def _insert(changed: bytearray, rng: random.Random) -> None:
    changed[(at := _place(changed, rng)) : at] = rng.randbytes(rng.choice((1, 2, 8, 512)))


def _double(changed: bytearray, rng: random.Random) -> None:
    at, count = _place(changed, rng), rng.choice((8, 64, 512))
    changed[at:at] = changed[at : at + count]


CHANGES: tuple[Callable[[bytearray, random.Random], None], ...] = (
    _flip_bits, _flip_bits, _set_bytes, _set_number, _set_number, _set_number, _set_float, _set_word, _set_word, _cut,
    _remove, _insert, _double,
)  # fmt: skip
