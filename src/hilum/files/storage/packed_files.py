"""Compressed streams and ZIP archives, read in parts, and the bound for what a small file may become in memory."""

from __future__ import annotations

import binascii
import bz2
import gzip
import io
import zipfile
import zlib
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, BinaryIO, Literal

from hilum.errors import FormatError

Compression = Literal["none", "gzip", "bzip2", "zlib", "hex", "text"]
GZIP: Compression = "gzip"
HEX: Compression = "hex"
GZIP_MAGIC = b"\x1f\x8b"
CHUNK = 1 << 22
GET_AGAIN = "Get the file again from where it came from"
# What any file may become without a second thought: a blank mammogram is 64 MB from a few hundred bytes.
FREE_BYTES = 1 << 30
# Beyond that. Deflate packs 1032 zeros into a byte; label maps of 64 bit floats come to 900 to 1.
LARGEST_RATIO = 1000


def is_compressed(compression: Compression) -> bool:
    """Whether the voxels do not lie in the file as they are in memory."""
    return compression != "none"


def compression_of(path: Path) -> Compression:
    """Whether the whole file is a gzip stream, by its first bytes and not by its name."""
    with path.open("rb") as file:
        return GZIP if file.read(2) == GZIP_MAGIC else "none"


def read_head(path: Path, size: int, *, after: int = 0) -> bytes:
    """The first `size` bytes (after some others) of a plain or gzipped file, or as many as there are."""
    with path.open("rb") as file, decompress_stream(file, compression_of(path)) as stream:
        try:
            return stream.read(size) if skip_bytes(stream, after) == after else b""
        except (EOFError, zlib.error, OSError) as error:
            raise FormatError(f"the compressed header is damaged ({error})", str(path), GET_AGAIN) from error


def decompress_stream(file: BinaryIO, compression: Compression) -> BinaryIO:
    """The stream of bytes that a file holds from here on."""
    return STREAMS[compression](file) if compression in STREAMS else file


def inflate_stream(file: BinaryIO, wbits: int = zlib.MAX_WBITS) -> io.BufferedReader:
    """The bytes of a zlib stream, read in parts; `wbits` below 0 for one without header and check sum."""
    return io.BufferedReader(_Inflating(file, wbits), CHUNK)


def skip_bytes(stream: BinaryIO, count: int) -> int:
    """Skip `count` bytes, or those that are left, and return their number."""
    done = 0
    while done < count and (got := len(stream.read(min(CHUNK, count - done)))):
        done += got
    return done


@contextmanager
def name_damage(path: Path) -> Iterator[None]:
    """A context in which what a damaged stream raises becomes a FormatError."""
    try:
        yield
    except EOFError as error:
        raise FormatError("the compressed voxels end too early", str(path), GET_AGAIN) from error
    except (zlib.error, gzip.BadGzipFile, OSError, binascii.Error) as error:
        raise FormatError(f"the compressed voxels are damaged ({error})", str(path), GET_AGAIN) from error


class _Inflating(io.RawIOBase):
    """A zlib stream as a file: the standard library has one for gzip only."""

    def __init__(self, file: BinaryIO, wbits: int) -> None:
        self._file = file
        self._inflate = zlib.decompressobj(wbits)

    def readable(self) -> bool:
        """True: the interface of io.RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with inflated bytes, and return their number: 0 at the end."""
        while not self._inflate.eof:
            packed = self._inflate.unconsumed_tail or self._file.read(CHUNK)
            plain = self._inflate.decompress(packed, len(buffer))
            if plain:
                buffer[: len(plain)] = plain
                return len(plain)
            if not packed:
                raise EOFError
        return 0


class _HexDigits(io.RawIOBase):
    """Bytes that a file spells as two hexadecimal digits each, with white space anywhere between them."""

    def __init__(self, file: BinaryIO) -> None:
        self._file = file
        self._digits = b""

    def readable(self) -> bool:
        """True: the interface of io.RawIOBase."""
        return True

    def readinto(self, buffer: Any) -> int:
        """Fill a buffer with bytes, and return their number: 0 at the end. Raises binascii.Error for other text."""
        while len(self._digits) < 2:
            text = self._file.read(CHUNK)
            if not text:
                return 0
            self._digits += b"".join(text.split())
        spelt = 2 * min(len(buffer), len(self._digits) // 2)
        plain = binascii.unhexlify(self._digits[:spelt])
        self._digits = self._digits[spelt:]
        buffer[: len(plain)] = plain
        return len(plain)


STREAMS: dict[Compression, Callable[[BinaryIO], Any]] = {
    "gzip": lambda file: gzip.GzipFile(fileobj=file),
    "bzip2": bz2.BZ2File,
    "zlib": inflate_stream,
    "hex": lambda file: io.BufferedReader(_HexDigits(file), CHUNK),
}


def most_unpacked(packed: int) -> int:
    """The most bytes that so many bytes of a file may become."""
    return max(FREE_BYTES, LARGEST_RATIO * packed)


def refuse_expansion(packed: int, decoded: int, where: str) -> None:
    """Raise FormatError where `packed` bytes of a file claim to be far too many `decoded` bytes of voxels."""
    if decoded > most_unpacked(packed):
        raise FormatError(
            f"claims {decoded} bytes of voxels in a file of {packed} bytes, which may be an attack",
            where,
            "If it is genuine, save it without compression",
        )


# Of bzip2 and LZMA the library unpacks without end to fill one small buffer; no program writes what we read with them.
UNPACKED = (zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED)
# Weights hardly shrink, and text about fivefold: an archive that grows more than this was made to fill a disk.
LARGEST_GROWTH = 100
MOST_FILES = 10_000
# What the library raises for a damaged archive, or one with a password.
ZIP_ERRORS = (zipfile.BadZipFile, zlib.error, EOFError, NotImplementedError, RuntimeError, UnicodeError)


@contextmanager
def open_zip(path: Path) -> Iterator[zipfile.ZipFile]:
    """The archive, if all in it is stored or deflated: then a file is cut, and refused, where its stated size ends.

    Raises ValueError for other compressions, and for what is no whole archive.
    """
    try:
        with zipfile.ZipFile(path) as archive:
            other = next((entry for entry in archive.infolist() if entry.compress_type not in UNPACKED), None)
            if other is not None:
                raise ValueError(f"{other.filename!r} is compressed in a way that is not read")
            yield archive
    except ZIP_ERRORS as error:
        raise ValueError(str(error)) from error


def refuse_growth(path: Path) -> None:
    """Raise ValueError for a ZIP that would unpack to far more than weights and text do; other files pass."""
    if not zipfile.is_zipfile(path):
        return
    with open_zip(path) as archive:
        entries = archive.infolist()
    size = sum(entry.file_size for entry in entries)
    if len(entries) > MOST_FILES or size > LARGEST_GROWTH * path.stat().st_size:
        problem = f"would unpack to {len(entries)} files and {size:,} bytes, which a small file can claim as an attack"
        raise ValueError(problem)
