"""The folders of objects: `inbox/` while they come, `studies/` for good, `aside/` where another was there first.

No path comes from inside a file: names are the first 32 hexadecimal digits of the SHA-256 of a UID. An object aside
can be exchanged with the one that came first.
"""

from __future__ import annotations

import errno
import fcntl
import hashlib
import itertools
import json
import os
import shutil
import time
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Literal, Self

from hilum.errors import FormatError, ResourceError
from hilum.files.dicom import object_identity
from hilum.files.dicom.object_identity import ObjectIdentity
from hilum.files.storage import structured_text
from hilum.service.objects.journal import Journal, JournalLine, Received, Way
from hilum.values.plain_values import PlainValue

Sync = Literal["object", "association", "commit"]

INBOX, STUDIES = "inbox", "studies"
SYNCED_AT_ONCE = 16
ENOUGH = 1 << 14  # bytes in which nearly every object states its UIDs
FULL = (errno.ENOSPC, errno.EDQUOT)


class OutOfSpaceError(ResourceError):
    """The disk is full, or has less free than the node is to leave."""


class IncomingPart:
    """An object while it comes; used with `with`, after which the part file is gone. size: bytes so far."""

    def __init__(self, path: Path) -> None:
        self.path = path
        with _written_to(path):
            self._file = os.open(path, os.O_CREAT | os.O_EXCL | os.O_WRONLY, 0o640)
        self.size = 0
        self._identity: ObjectIdentity | None = None
        self._start = bytearray()

    def write(self, data: bytes | memoryview) -> None:
        """Add bytes. Raises ResourceError."""
        view = memoryview(data)
        try:
            while (written := os.write(self._file, view)) < len(view):
                self.size += written
                view = view[written:]
        except OSError as error:
            raise _as_ours(error, self.path) from error
        self.size += written
        if len(self._start) < ENOUGH:
            self._start += data[: ENOUGH - len(self._start)]
            if len(self._start) == ENOUGH:
                with suppress(FormatError):  # more is needed
                    self.identify()

    def identify(self) -> ObjectIdentity:
        """Identify an object while the rest is still coming, where that can be. Raises FormatError."""
        if self._identity is None:
            self._identity = object_identity.read_identity(self.path, bytes(self._start))
        return self._identity

    def sync(self) -> None:
        """Wait until the bytes survive a power cut."""
        with _written_to(self.path):
            os.fsync(self._file)

    def close(self) -> None:
        """Remove the part file; what was kept has its other name."""
        os.close(self._file)
        self.path.unlink(missing_ok=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()


class ObjectStore:
    """The place where one process keeps what it receives; threads may share it.

    folder:      of the node
    name:        of the process, in the name of its folder in `inbox/`
    sync:        whether `keep` waits for the disk, or who receives calls `secure_files` later
    min_free_gb: of the disk, below which nothing more is taken
    """

    def __init__(self, folder: Path, name: str, *, sync: Sync = "association", min_free_gb: float = 0.0) -> None:
        self.folder, self.sync, self.min_free = folder, sync, min_free_gb * 1e9
        self.journal = Journal(folder / INBOX, name)
        self._numbers = itertools.count()

    @property
    def is_full(self) -> bool:
        """Whether the disk has less free than it is to keep. Raises ResourceError."""
        with _written_to(self.folder):
            disk = os.statvfs(self.folder)
        return disk.f_bavail * disk.f_frsize < self.min_free

    def open_part(self) -> IncomingPart:
        """A file to receive into. Raises ResourceError."""
        if self.is_full:
            raise _out_of_space(self.folder)
        return IncomingPart(self.journal.folder / f"{next(self._numbers)}.part")

    def keep(self, part: IncomingPart, peer: str, way: Way = "store", *, announced: str = "") -> Received:
        """Give a whole object its final name, and write that down; from here on it survives the death of the node.

        The same object once more changes nothing; another one with the same UID goes aside, the same one once.
        announced: the instance's UID as the sender states it
        Raises FormatError for what lacks a UID or is not what was announced, and ResourceError.
        """
        with _written_to(self.folder):
            identity = part.identify()
            if announced and identity.instance != announced:
                raise FormatError("is another instance than was announced", str(part.path), "Send it under its own UID")
            if self.sync == "object":
                part.sync()
            path = _place(self.folder, part.path, identity)
            received = Received(*identity[:5], path, part.size, peer, time.time(), way)
            if self.sync == "object":
                secure_files(self.folder, [path])
            self.journal.append(received)
        return received

    def note(self, line: JournalLine) -> None:
        """Write a line for the keeper that is about no object. Raises ResourceError."""
        with _written_to(self.folder):
            self.journal.append(line)

    def close(self) -> None:
        """Nothing more comes."""
        self.journal.close()


def secure_files(folder: Path, paths: Iterable[str]) -> None:
    """Wait until files survive a power cut, their names too. Raises ResourceError.

    paths: from the node's folder
    """
    files = [Path(path) for path in paths]
    with _written_to(folder):
        if len(files) == 1:  # threads would cost more than they save
            _sync(folder / files[0])
        else:
            # A file system's journal takes what waits at the same time in one go: a sixth of the time of one by one.
            with ThreadPoolExecutor(SYNCED_AT_ONCE) as pool:
                list(pool.map(_sync, [folder / file for file in files]))
        for parent in {parent for file in files for parent in file.parents}:
            _sync(folder / parent)


def remove_files(folder: Path, paths: Sequence[str]) -> int:
    """Delete files, and folders whole; return their bytes. They stay deleted after a power cut. Raises OSError.

    paths: from the node's folder; what is not there was deleted before. Folders of an object go once they are empty.
    """
    freed, parents = 0, set[Path]()
    for path in (folder / one for one in paths):
        parents.add(path.parent)
        files = [one for one in path.rglob("*") if one.is_file()] if path.is_dir() else [path]
        freed += sum(one.stat().st_size for one in files if one.exists())
        if path.is_dir():
            shutil.rmtree(path)
        else:
            path.unlink(missing_ok=True)
    of_series = [one for one in parents if folder / STUDIES in one.parents]
    for empty in (*of_series, *{one.parent for one in of_series}):  # the folders above are those of other studies too
        with suppress(OSError):
            empty.rmdir()
    for place in {next(above for above in (one, *one.parents) if above.is_dir()) for one in parents}:
        _sync(place)
    return freed


def files_without_row(folder: Path, is_known: Callable[[str], bool]) -> Iterator[Received]:
    """Objects in `studies/` that no row knows, as a process leaves them that is killed between file and journal.

    is_known: whether there is a row, by the path from the node's folder
    What a power cut has left without content goes aside.
    """
    for path in sorted((folder / STUDIES).glob("??/*/*/*.dcm")):
        name = path.relative_to(folder).as_posix()
        if is_known(name):
            continue
        try:
            identity = object_identity.read_identity(path)
        except FormatError as error:
            set_aside(folder, path, path.name, {"reason": error.problem, "file": name})
            path.unlink()
            continue
        about = path.stat()
        yield Received(*identity[:5], name, about.st_size, "", about.st_mtime, "found")


def _place(folder: Path, part: Path, identity: ObjectIdentity) -> str:
    """The final path, or that in `aside/`. A link is made whole or not at all, and never in place of another file."""
    study, series, instance = map(uid_key, identity[:3])
    path = f"{STUDIES}/{study[:2]}/{study}/{series}/{instance}.dcm"
    try:
        try:
            os.link(part, f"{folder}/{path}")
        except FileNotFoundError:
            (folder / path).parent.mkdir(parents=True, exist_ok=True)
            os.link(part, f"{folder}/{path}")
    except FileExistsError:
        return _kept_aside(folder, part, identity, path)
    return path


def _kept_aside(folder: Path, part: Path, identity: ObjectIdentity, path: str) -> str:
    first = folder / path
    try:
        identity_of_first = object_identity.read_identity(first)
    except FormatError:  # a power cut has emptied it
        part.replace(first)
        return path
    if object_identity.is_same_object(part, identity, first, identity_of_first):
        return path
    reason = {"reason": "another object with the same UID came first", "first": path}
    with lock_asides(folder):  # two receivers may be sent the same at once
        rivals = (aside.path for aside in read_asides(folder) if aside.first == path)
        folder_aside = next((rival for rival in rivals if _is_same(part, identity, rival)), None)
        folder_aside = folder_aside or set_aside(folder, part, "object.dcm", reason)
    return folder_aside.relative_to(folder).as_posix()


def _is_same(part: Path, identity: ObjectIdentity, rival: Path) -> bool:
    """Whether an object that lies aside is the one that has come."""
    try:
        identity_of_rival = object_identity.read_identity(rival)
    except (FormatError, FileNotFoundError):
        return False
    return object_identity.is_same_object(part, identity, rival, identity_of_rival)


def uid_key(uid: str) -> str:
    """The name of an object, a series or a study in files and records: a hash, so that no path comes from a UID."""
    return hashlib.sha256(uid.encode()).hexdigest()[:32]


def _sync(path: Path) -> None:
    file = os.open(path, os.O_RDONLY)
    try:
        os.fsync(file)
    finally:
        os.close(file)


@contextmanager
def _written_to(path: Path) -> Iterator[None]:
    """Raise ResourceError for what the disk cannot do: else it looks like a fault of whoever sends."""
    try:
        yield
    except OSError as error:
        raise _as_ours(error, path) from error


def _as_ours(error: OSError, path: Path) -> ResourceError:
    if error.errno in FULL:
        return _out_of_space(path)
    return ResourceError(f"the node cannot write ({error.strerror})", str(path), "Check its folder and its disk")


def _out_of_space(path: Path) -> OutOfSpaceError:
    return OutOfSpaceError("the disk is full or nearly so", str(path), "Free some space, or lower min_free_gb")


ASIDE, LOCK = "aside", "lock"


@dataclass(frozen=True)
class AsideObject:
    """An object in `aside/<number>/`.

    first: path of the object with the same UID that is kept, from the node's folder; None where there is none
    at:    s since 1970
    """

    number: int
    reason: str
    first: str | None
    at: float | None
    path: Path


def set_aside(folder: Path, path: Path, name: str, reason: Mapping[str, PlainValue]) -> Path:
    """Link a file into a new folder `aside/<n>/`, with the reason beside it; the new path.

    The reason names no patient.
    """
    (folder / ASIDE).mkdir(exist_ok=True)
    taken = [int(entry.name) for entry in os.scandir(folder / ASIDE) if entry.name.isdecimal()]
    for number in itertools.count(max(taken, default=0) + 1):
        folder_aside = folder / ASIDE / str(number)
        try:
            folder_aside.mkdir()
        except FileExistsError:  # another process was first
            continue
        break
    os.link(path, folder_aside / name)
    record = {"schema": "hilum.aside", "version": 1, "at": time.time(), **reason}
    (folder_aside / "reason.json").write_text(json.dumps(record, indent=1) + "\n", encoding="utf-8")
    return folder_aside / name


@contextmanager
def lock_asides(folder: Path) -> Iterator[None]:
    """No other process of the node sets anything aside meanwhile."""
    (folder / ASIDE).mkdir(exist_ok=True)
    with (folder / ASIDE / LOCK).open("w") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        yield


def read_asides(folder: Path) -> list[AsideObject]:
    """Objects that lie aside, by number; a folder that is just being made is left out."""
    asides = []
    for folder_aside in (folder / ASIDE).glob("[0-9]*"):
        objects = sorted(folder_aside.glob("*.dcm"))
        try:
            stated = structured_text.load_json(folder_aside / "reason.json")
        except (OSError, ValueError):
            continue
        if objects and folder_aside.name.isdecimal() and isinstance(stated, dict):
            reason, first, at = (stated.get(name) for name in ("reason", "first", "at"))
            asides.append(AsideObject(int(folder_aside.name), str(reason), first, at, objects[0]))
    return sorted(asides, key=lambda aside: aside.number)


def exchange_aside(folder: Path, aside: AsideObject) -> None:
    """Give an object the place of the one that came first, which goes aside instead: none is lost on the way."""
    if aside.first is None:
        return
    path = folder / aside.first
    waiting = aside.path.with_suffix(".kept")
    waiting.unlink(missing_ok=True)  # of an exchange that was broken off
    os.link(path, waiting)
    aside.path.replace(path)
    waiting.replace(aside.path)
