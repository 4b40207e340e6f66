"""A multipart body, read as it comes (RFC 2046 5.1): no more of it is in memory than the bytes just fed."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator
from contextlib import ExitStack
from email.message import Message
from itertools import chain

from hilum.errors import FormatError
from hilum.service.objects.object_store import IncomingPart, ObjectStore
from hilum.work_state import log

# Else a server decodes what is compressed, PS3.18 8.7.3.
AS_STORED = 'multipart/related; type="application/dicom"; transfer-syntax=*'

LONGEST_HEAD = 1 << 14
LONGEST_BOUNDARY = 200  # RFC 2046 says 70; those of Orthanc 1.10 have 73
PADDING = 32  # spaces that may stand behind a boundary


def boundary_of(content_type: str) -> bytes:
    """The boundary that a Content-Type states. Raises FormatError for what is no multipart/related of DICOM objects."""
    header = Message()
    header["content-type"] = content_type.replace("\r", " ").replace("\n", " ")
    boundary, kind = header.get_param("boundary"), header.get_param("type", "application/dicom")
    is_usual = isinstance(boundary, str) and 0 < len(boundary) <= LONGEST_BOUNDARY and boundary.isascii()
    if header.get_content_type() != "multipart/related" or str(kind).lower() != "application/dicom" or not is_usual:
        raise _malformed_error("the body is not stated to be multipart/related of application/dicom, with a boundary")
    return str(boundary).encode()


class MultipartReader:
    """Parts of a body as events: the Content-Type of a part, bytes of it in pieces, None where it ends."""

    def __init__(self, boundary: bytes) -> None:
        delimiter = b"\r\n--" + boundary
        self._delimiter = re.compile(re.escape(delimiter) + rb"(--|[ \t]{0,%d}\r\n)" % PADDING)
        self._longest = len(delimiter) + PADDING + 2
        self._buffer = bytearray(b"\r\n")  # so that the first boundary may be the first line
        self._state = "preamble"  # then head and body in turn, and end

    def feed(self, data: bytes) -> Iterator[str | bytes | None]:
        """The events that are whole with these bytes. Raises FormatError."""
        if self._state == "end":  # what follows the last boundary means nothing
            return
        self._buffer += data
        while self._state != "end":
            if self._state == "head":
                end = (b"\r\n" + self._buffer).find(b"\r\n\r\n")
                if end < 0 and len(self._buffer) <= LONGEST_HEAD:
                    return
                if not 0 <= end <= LONGEST_HEAD:
                    raise _malformed_error("the headers of a part do not end")
                yield _content_type(bytes(self._buffer[:end]))
                del self._buffer[: end + 2]
                self._state = "body"
                continue
            delimiter, is_in_part = self._delimiter.search(self._buffer), self._state == "body"
            content = delimiter.start() if delimiter else max(0, len(self._buffer) - self._longest + 1)
            if is_in_part and content:
                yield bytes(self._buffer[:content])
            if delimiter is None:
                del self._buffer[:content]
                return
            self._state = "end" if delimiter[1] == b"--" else "head"
            del self._buffer[: delimiter.end()]
            if is_in_part:
                yield None

    def finish(self) -> None:
        """Raise FormatError where the last boundary has not come."""
        if self._state != "end":
            raise _malformed_error("the body ends before its last boundary")


def _content_type(head: bytes) -> str:
    for line in head.split(b"\r\n"):
        name, _, value = line.partition(b":")
        if name.strip().lower() == b"content-type":
            return value.decode("latin-1").partition(";")[0].strip().lower()
    return ""


def _malformed_error(problem: str) -> FormatError:
    return FormatError(problem, "the request", "Send one part for each object, as PS3.18 8.6.1.2 says")


def keep_objects(content_type: str, pieces: Iterable[bytes], store: ObjectStore, peer: str) -> int:
    """Keep the objects of an answer of WADO-RS byte for byte, each as it comes, and return their number.

    content_type, pieces: of the answer
    One that cannot be kept holds up no other.
    """
    count = 0
    with ExitStack() as stack:
        reader = MultipartReader(boundary_of(content_type))
        for event in chain.from_iterable(map(reader.feed, pieces)):
            if isinstance(event, str):
                part = stack.enter_context(store.open_part())
            elif isinstance(event, bytes):
                part.write(event)
            else:
                count += _keep(part, store, peer)
                stack.close()
        reader.finish()
    return count


def _keep(part: IncomingPart, store: ObjectStore, peer: str) -> bool:
    try:
        store.keep(part, peer, "front")
    except FormatError:  # its words may be the file's
        log.warning("an object of %s is not a DICOM object with its UIDs, and cannot be kept", peer)
        return False
    return True
