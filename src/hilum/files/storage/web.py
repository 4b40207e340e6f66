"""Downloads, whole and with the right checksum or not at all, and unpacking of their archives."""

from __future__ import annotations

import hashlib
import http.client
import ssl
import tarfile
import time
import urllib.error
import urllib.request
from collections.abc import Callable
from pathlib import Path, PurePosixPath
from typing import IO

from hilum.errors import FormatError, IntegrityError, ResourceError
from hilum.files.storage import atomic

Progress = Callable[[int, int], None]
CHUNK = 1 << 18
AGAIN = "Try again later, or give data of your own"


def download(
    url: str,
    path: Path,
    *,
    md5: str,
    limit: int,
    seconds: float,
    patience: float = 5.0,
    progress: Progress | None = None,
) -> None:
    """Download the file at an http(s) address; `path` exists only when all of it has come and the checksum is right.

    limit:    bytes; more than this is refused
    seconds:  for the whole download
    patience: s without a word from the server
    progress: called with bytes so far and bytes in all (0 where the server does not state them)
    Raises ResourceError where it cannot be got, IntegrityError where something else came.
    """
    if not url.startswith(("http://", "https://")):
        raise ResourceError("is not a web address", url, "Give one that starts with https://")
    deadline = time.monotonic() + seconds
    with atomic.write_whole(path) as partial:
        try:
            with urllib.request.urlopen(url, timeout=patience) as answer, partial.open("wb") as file:  # noqa: S310 - the scheme is looked at above
                total, digest = _copy(answer, file, url, limit, deadline, progress)
        except urllib.error.HTTPError as error:
            raise ResourceError(f"the server answered {error.code} {error.reason}", url, AGAIN) from error
        except (urllib.error.URLError, http.client.HTTPException, TimeoutError, ConnectionError, ssl.SSLError) as error:
            reason = getattr(error, "reason", error)
            words = getattr(reason, "strerror", None) or reason
            raise ResourceError(f"cannot be reached ({words})", url, AGAIN) from error
        if total and partial.stat().st_size != total:
            raise IntegrityError(f"ended after {partial.stat().st_size} of {total} bytes", url, AGAIN)
        if digest != md5:
            raise IntegrityError(f"has the MD5 {digest}, not {md5}", url, AGAIN)


def _copy(
    answer: http.client.HTTPResponse, file: IO[bytes], url: str, limit: int, deadline: float, progress: Progress | None
) -> tuple[int, str]:
    """Bytes that were announced, and the MD5 of those that came."""
    total, done = answer.length or 0, 0
    digest = hashlib.md5(usedforsecurity=False)
    while chunk := answer.read1(CHUNK):
        done += len(chunk)
        if max(done, total) > limit:
            raise IntegrityError(f"has more than {limit} bytes", url, AGAIN)
        if time.monotonic() > deadline:
            raise ResourceError(f"comes too slowly, {done} bytes so far", url, AGAIN)
        digest.update(chunk)
        file.write(chunk)
        if progress is not None:
            progress(done, total)
    return total, digest.hexdigest()


def unpack_tar(archive: Path, folder: Path, *, limit: int) -> None:
    """Unpack a tar's files and folders into a new folder, all or none.

    limit: bytes of all files
    Raises FormatError for a damaged archive and for one that holds anything but files and folders below its own
    place: no links, no devices, no way out.
    """
    try:
        with tarfile.open(archive) as tar, atomic.write_whole(folder) as partial:
            partial.mkdir()
            members = tar.getmembers()
            _check(members, archive, limit)
            tar.extractall(partial, members, filter="data")
    except (tarfile.TarError, EOFError) as error:
        raise FormatError(f"cannot be unpacked ({error})", str(archive), "Get it again") from error


def _check(members: list[tarfile.TarInfo], archive: Path, limit: int) -> None:
    for member in members:
        name = PurePosixPath(member.name)
        inside = not name.is_absolute() and ".." not in name.parts and "\\" not in member.name
        if not inside or not (member.isfile() or member.isdir()):
            raise FormatError(f"holds {member.name!r}, which is not unpacked", str(archive), "Do not trust this file")
    if sum(member.size for member in members) > limit:
        raise FormatError(f"holds more than {limit} bytes", str(archive), "Do not trust this file")
