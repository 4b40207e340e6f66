"""A node as one tar, taken while it runs: a copy of the database first, then the files that it names; and back."""

from __future__ import annotations

import hashlib
import io
import os
import shutil
import tarfile
import time
from collections.abc import Iterator
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path, PurePosixPath
from typing import IO, Any, Literal

from pydantic import BaseModel, Field, JsonValue
from sqlalchemy import Connection, select, update

from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import atomic, hashing, structured_text
from hilum.service import configuration, node_folder
from hilum.service.configuration import NodeSettings
from hilum.service.deploying import GATES
from hilum.service.node_folder import MODELS, MONITOR, SETTINGS
from hilum.service.objects.object_store import ASIDE
from hilum.service.records import audit_records, database_copies, job_queue, migration, record_database, study_index
from hilum.service.records.database_copies import NAMES
from hilum.service.records.deployments import PACKAGES
from hilum.service.records.job_queue import GOING, OPEN
from hilum.service.records.record_database import Database, DatabaseClock
from hilum.service.records.tables import ANSWERS, INSTANCES, JOBS, STUDIES
from hilum.service.work.worker import RESULTS
from hilum.values import record_schema

MANIFEST, SEAL, TOML = "manifest.json", "manifest.sha256", "node.toml"
LARGEST_MANIFEST = 1 << 30  # bytes, of some eight million files
# Files and folders of a node that no row names.
OTHERS = (MODELS, MONITOR, "front.json", GATES, PACKAGES)


@dataclass(frozen=True)
class NodeBackup:
    """What a backup holds.

    absent, changed: files that the database names, and that were not there, or are not what it states
    models: where the settings have models, which are not in it
    """

    file: Path
    files: int
    bytes: int
    head: str
    absent: tuple[str, ...] = ()
    changed: tuple[str, ...] = ()
    models: tuple[str, ...] = ()

    def as_record(self) -> dict[str, JsonValue]:
        """The record for `--json`: its fields."""
        return {"schema": "hilum.backup_made", "version": 1, **record_schema.plain_fields(self)}

    def __repr__(self) -> str:
        lines = [f"{self.file}: {self.files} files, {self.bytes / 1e9:.3f} GB; the audit's last hash is {self.head}"]
        lines += [f"not there: {name}" for name in self.absent]
        lines += [f"not what the database states: {name}" for name in self.changed]
        lines += [f"not in it, and needed to start the node again: {path}" for path in self.models]
        return "\n".join(lines)


class BackupManifest(BaseModel):
    """What a backup states of itself.

    revision:    of the tables; images: whether it has them
    head:        hash of the audit's last sealed event
    patient_key: id of the key that made its pseudonyms
    files:       {path from the node's folder: SHA-256}
    """

    schema_: Literal["hilum.backup"] = Field("hilum.backup", alias="schema")
    version: Literal[1] = 1
    hilum: str
    created_at: float
    database: Literal["sqlite", "postgresql"]
    revision: str | None
    images: bool
    head: str
    patient_key: str
    files: dict[str, str]


@dataclass(eq=False)
class _TarWriter:
    """Adds files to a tar, and keeps their sums."""

    tar: tarfile.TarFile
    sums: dict[str, str] = field(default_factory=dict)
    bytes: int = 0
    absent: list[str] = field(default_factory=list)
    changed: list[str] = field(default_factory=list)

    def add(self, name: str, path: Path, sha256: str = "") -> None:
        """A file by its name in the tar; sha256: as the database states it."""
        if name in self.sums:
            return
        try:
            file = path.open("rb")
        except FileNotFoundError:
            self.absent.append(name)
            return
        with file:  # a file that is replaced meanwhile is read as it was
            about = os.fstat(file.fileno())
            self._write(name, _HashingReader(file), about.st_size, about.st_mtime)
        if sha256 not in ("", self.sums[name]):
            self.changed.append(name)

    def add_text(self, name: str, text: str) -> None:
        """A file that is made here."""
        data = text.encode()
        self._write(name, _HashingReader(io.BytesIO(data)), len(data), time.time())

    def _write(self, name: str, reader: _HashingReader, size: int, at: float) -> None:
        member = tarfile.TarInfo(name)
        member.size, member.mtime, member.mode = size, int(at), 0o640
        self.tar.addfile(member, reader)
        self.sums[name] = reader.sum.hexdigest()
        self.bytes += size


@dataclass(eq=False)
class _HashingReader:
    file: IO[bytes]
    sum: Any = field(default_factory=hashlib.sha256)

    def read(self, size: int = -1) -> bytes:
        data = self.file.read(size)
        self.sum.update(data)
        return data


def write_backup(folder: Path, out: Path, *, with_images: bool = True, overwrite: bool = False) -> NodeBackup:
    """Write a node, which may be running, into a tar; retention waits meanwhile.

    Raises UsageError for a folder without a node or a file that is there already, ResourceError for a full disk.
    """
    settings, database = node_folder.node_settings(folder), record_database.node_database(folder)
    kind: Literal["sqlite", "postgresql"] = "postgresql" if database.skips_locked else "sqlite"
    try:
        with node_folder.hold_retention(folder), atomic.write_whole(out, overwrite=overwrite) as partial:
            copy = partial.parent / NAMES[kind]
            with tarfile.open(partial, "w") as tar, database_copies.copy_database(database, copy) as connection:
                writer, head = _TarWriter(tar), audit_records.sealed_head(connection).hash
                writer.add(NAMES[kind], copy)
                for name, sha256 in _named_files(connection, folder, with_images=with_images):
                    writer.add(name, folder / name, sha256)
                for name, path in _other_files(folder, settings):
                    writer.add(name, path)
                manifest = BackupManifest(
                    schema="hilum.backup",
                    hilum=version("hilum"),
                    created_at=time.time(),
                    database=kind,
                    revision=migration.stored_revision(connection),
                    images=with_images,
                    head=head,
                    patient_key=hashing.patient_key_id(),
                    files=writer.sums,
                )
                writer.add_text(MANIFEST, manifest.model_dump_json(by_alias=True, indent=1))
                writer.add_text(SEAL, writer.sums[MANIFEST])
    finally:
        database.close()
    models = tuple(str(one.path) for one in settings.models.values())
    notes = (tuple(writer.absent), tuple(writer.changed), models)
    return NodeBackup(out, len(manifest.files), writer.bytes, head, *notes)


def _named_files(connection: Connection, folder: Path, *, with_images: bool) -> Iterator[tuple[str, str]]:
    """(Path from the node's folder, SHA-256) of each file that the database names; "" where it states no sum."""
    if with_images:
        both = INSTANCES.join(STUDIES, INSTANCES.c.study == STUDIES.c.study)
        objects = select(INSTANCES.c.path, INSTANCES.c.sha256).select_from(both)
        yield from connection.execute(objects.where(STUDIES.c.state != GOING)).tuples()
        yield from ((path.relative_to(folder).as_posix(), "") for path in _files_in(folder / ASIDE))
    answers = select(ANSWERS.c.job, ANSWERS.c.name, ANSWERS.c.sha256)
    for job, name, sha256 in connection.execute(answers.where(ANSWERS.c.bytes > 0)):
        yield f"{RESULTS}/{job}/{name}", sha256


def _other_files(folder: Path, settings: NodeSettings) -> Iterator[tuple[str, Path]]:
    """(Name, path) of the settings, and of what no row names."""
    yield SETTINGS, node_folder.settings_file(folder, "keeper")
    if settings.file is not None and settings.file.is_file():
        yield TOML, settings.file
    for name in OTHERS:
        for path in _files_in(folder / name):
            yield path.relative_to(folder).as_posix(), path


def _files_in(place: Path) -> list[Path]:
    return [place] if place.is_file() else sorted(path for path in place.rglob("*") if path.is_file())


@dataclass(frozen=True)
class RestoredNode:
    """A node that was restored. is_same_key: whether the patient key here is that of the backup"""

    folder: Path
    files: int
    head: str | None
    is_same_key: bool
    has_images: bool


def restore_node(file: Path, folder: Path, url: str | None = None) -> RestoredNode:
    """Make a folder, and a database, of a backup, once all of it is verified. url: of an empty database of PostgreSQL

    Raises IntegrityError for a backup that is not whole or not what its manifest states, UsageError for a folder or a
    database that holds something, for another kind of database, and for a newer version.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise UsageError("holds something", str(folder), "Choose another --folder")
    configuration.read_settings(database={"url": url or "sqlite"})  # refuses what is no database of a node
    with _read_tar(file) as tar:
        manifest = _verified_manifest(tar, file)
        migration.refuse_newer(manifest.revision, str(file))
        kind = manifest.database
        if kind != ("sqlite" if url in (None, "sqlite") else "postgresql"):
            remedy = "Give --database postgresql://USER@HOST/NAME" if kind == "postgresql" else "Leave out --database"
            raise UsageError(f"its database is of {kind}", str(file), remedy)
        place = url if kind == "postgresql" and url is not None else f"sqlite:///{folder / NAMES['sqlite']}"
        with atomic.write_whole(folder, overwrite=True) as partial:
            partial.mkdir()
            _extract(tar, partial)
            _write_settings(partial, folder, "sqlite" if kind == "sqlite" else place)
            if kind == "postgresql":
                _fill_database(place, partial / NAMES[kind])
    with closing(migration.migrate_database(place)) as database:
        if not manifest.images:
            _forget_images(database)
    is_same_key = hashing.has_patient_key() and hashing.patient_key_id() == manifest.patient_key
    head = manifest.head if manifest.head != audit_records.FIRST else None
    return RestoredNode(folder, len(manifest.files), head, is_same_key, manifest.images)


@contextmanager
def _read_tar(file: Path) -> Iterator[tarfile.TarFile]:
    try:
        with tarfile.open(file, "r:") as tar:
            yield tar
    except (tarfile.TarError, EOFError) as error:
        raise _damage_error(file, f"is no whole tar ({error})") from error
    except FileNotFoundError as error:
        raise UsageError("there is no such file", str(file), "Give what `hilum backup` wrote") from error


def _verified_manifest(tar: tarfile.TarFile, file: Path) -> BackupManifest:
    """The manifest of a backup, all of whose files are as it states. Raises IntegrityError."""
    sums, texts = dict[str, str](), dict[str, bytes]()
    for member in tar:
        name = PurePosixPath(member.name)
        if not member.isreg() or name.is_absolute() or ".." in name.parts or "\\" in member.name:
            raise _damage_error(file, f"holds {member.name!r}, which is no file within the node's folder")
        if member.name in sums:
            raise _damage_error(file, f"holds {member.name!r} twice")
        reader = _HashingReader(_content(tar, member))
        if member.name in (MANIFEST, SEAL):
            texts[member.name] = reader.read(LARGEST_MANIFEST)
        while reader.read(1 << 20):
            pass
        sums[member.name] = reader.sum.hexdigest()
    if texts.get(SEAL, b"").decode("ascii", "replace") != sums.pop(MANIFEST, None):
        raise _damage_error(file, f"has no whole {MANIFEST}")
    del sums[SEAL]
    try:
        manifest = BackupManifest.model_validate(structured_text.parse_json(texts[MANIFEST].decode()))
    except ValueError as error:
        raise _damage_error(file, f"has a {MANIFEST} of another kind or version") from error
    wrong = sorted(name for name in {*sums, *manifest.files} if sums.get(name) != manifest.files.get(name))
    if wrong:
        raise _damage_error(file, f"{wrong[0]} is not what the manifest states")
    return manifest


def _content(tar: tarfile.TarFile, member: tarfile.TarInfo) -> IO[bytes]:
    content = tar.extractfile(member)
    assert content is not None  # noqa: S101 - it is a regular file
    return content


def _damage_error(file: Path, problem: str) -> IntegrityError:
    return IntegrityError(problem, str(file), "Nothing was restored: take another backup")


def _extract(tar: tarfile.TarFile, folder: Path) -> None:
    """Write the files, whose names were verified, into a folder."""
    for member in tar.getmembers():
        if member.name not in (MANIFEST, SEAL):
            target = folder / member.name
            target.parent.mkdir(parents=True, exist_ok=True)
            with target.open("xb") as file:
                shutil.copyfileobj(_content(tar, member), file)
                os.fsync(file.fileno())


def _write_settings(partial: Path, folder: Path, url: str) -> None:
    """State in the settings where the node lies now."""
    settings = node_folder.stored_settings(partial / SETTINGS)
    node = settings.node.model_copy(update={"folder": folder.absolute()})
    database = settings.database.model_copy(update={"url": url})
    file = (folder / TOML).absolute() if (partial / TOML).is_file() else None
    settings = settings.model_copy(update={"node": node, "database": database, "file": file})
    (partial / SETTINGS).write_text(settings.model_dump_json(indent=1), encoding="utf-8")


def _fill_database(url: str, dump: Path) -> None:
    with closing(record_database.open_database(url)) as database:
        database_copies.refuse_database_with_tables(database)
        database_copies.restore_dump(database, dump)
    dump.unlink()


def _forget_images(database: Database) -> None:
    """Mark the images of all studies as gone, which a backup without them lacks; jobs on them are cancelled."""
    because = "the node was restored without images"
    with database.write() as connection:
        here = select(STUDIES.c.study).where(STUDIES.c.objects_gone_at.is_(None))
        for study in connection.execute(here).scalars().all():
            mine = select(JOBS.c.job).where(JOBS.c.study == study, JOBS.c.state.in_(OPEN))
            for job in connection.execute(mine.where(JOBS.c.state != "sending")).scalars().all():
                job_queue.close_job(connection, job, "cancelled", because)
            study_index.forget_objects(connection, study)
            gone = {"state": "gone", "objects_gone_at": DatabaseClock(), "routed": STUDIES.c.revision}
            connection.execute(update(STUDIES).where(STUDIES.c.study == study).values(gone))
            detail = {"because": because}
            audit_records.record_event(connection, "objects deleted", study, study=study, detail=detail)
