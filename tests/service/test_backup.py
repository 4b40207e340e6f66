"""A node as one tar: all of it is there again, or nothing is restored; and its tables as they were before a change."""

from __future__ import annotations

import io
import resource
import signal
import tarfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import pytest
from sqlalchemy import select, text

import hilum
from hilum.errors import HilumError, IntegrityError, ResourceError, UsageError
from hilum.files.storage import hashing
from hilum.service import configuration, node_backup, node_folder, supervisor
from hilum.service._retention import Retention
from hilum.service.records import database_copies, migration, record_database, tables
from hilum.service.records.audit_records import seal_events
from service.databases import with_tables
from service.small_node import SmallNode
from service.thresholds import threshold_model


def lived(node: SmallNode, images: list[Path]) -> SmallNode:
    """A node that has answered a study, and stands in its folder as one that was started."""
    node.receive(*images)
    node.work()
    seal_events(node.database, "radiology")
    file = node_folder.settings_file(node.settings.folder, "keeper")
    file.write_text(node.settings.model_dump_json(), encoding="utf-8")
    return node


def new_database(server: str, name: str) -> str:
    """The URL of a database that is made on a server of PostgreSQL."""
    database = record_database.open_database(server)
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        connection.execute(text(f"CREATE DATABASE {name}"))
    database.close()
    return server.rpartition("/")[0] + f"/{name}"


def all_rows(database) -> dict[str, list[tuple]]:
    with database.read() as connection:
        return {
            table.name: sorted(map(repr, connection.execute(select(table)).tuples()))
            for table in tables.metadata.sorted_tables
        }


def contents(folder: Path) -> dict[str, bytes]:
    """The files of a node that are not of a process or the database."""
    files = {path.relative_to(folder).as_posix(): path for path in folder.rglob("*") if path.is_file()}
    own = ("inbox", "node.sqlite", "retention.lock", "settings.json")
    return {name: path.read_bytes() for name, path in files.items() if not name.startswith(own)}


@pytest.fixture
def node(small_node, mr) -> SmallNode:
    return lived(small_node, mr)


@pytest.fixture(scope="module")
def backed_up(tmp_path_factory) -> Path:
    """A backup of a node without studies."""
    room = tmp_path_factory.mktemp("backed_up")
    made = SmallNode(room / "node", study={"complete_after_s": 0})
    lived(made, [])
    made.store.close()
    hilum.backup(room / "node", out=room / "node.tar")
    return room / "node.tar"


def test_a_restored_node_has_every_study_result_and_event(node, tmp_path):
    backup = hilum.backup(node.settings.folder, out=tmp_path / "node.tar")
    assert (backup.absent, backup.changed) == ((), ()) and backup.models == (
        str(tmp_path / "model" / "threshold.onnx"),
    )
    restored = hilum.restore(tmp_path / "node.tar", folder=tmp_path / "again")
    assert contents(tmp_path / "again") == contents(node.settings.folder)
    database = record_database.node_database(tmp_path / "again")
    assert all_rows(database) == all_rows(node.database)
    database.close()
    assert (restored.audit.head, restored.notes) == (backup.head, [])
    assert node_folder.node_settings(tmp_path / "again").folder == tmp_path / "again"
    with tarfile.open(tmp_path / "node.tar") as tar:  # plain: any program reads it
        assert {"node.sqlite", "settings.json", "manifest.json"} < set(tar.getnames())
    key = hashing.key_file().read_bytes() if hashing.key_file().exists() else b"no key of a file"
    assert key not in (tmp_path / "node.tar").read_bytes()


def test_on_postgresql_it_is_as_on_sqlite(postgresql, tmp_path, mr):
    urls = {name: new_database(postgresql, name) for name in ("lived", "again")}
    model = threshold_model(tmp_path / "model", 40.5)
    node = lived(SmallNode(tmp_path / "node", model, database={"url": urls["lived"]}), mr)
    hilum.backup(tmp_path / "node", out=tmp_path / "node.tar")
    with pytest.raises(UsageError, match="its database is of postgresql"):
        hilum.restore(tmp_path / "node.tar", folder=tmp_path / "again")
    with pytest.raises(UsageError, match="holds tables already"):
        hilum.restore(tmp_path / "node.tar", folder=tmp_path / "again", database=urls["lived"])
    assert not (tmp_path / "again").exists()
    hilum.restore(tmp_path / "node.tar", folder=tmp_path / "again", database=urls["again"])
    database = record_database.node_database(tmp_path / "again")
    assert all_rows(database) == all_rows(node.database) and contents(tmp_path / "again") == contents(tmp_path / "node")
    for one in (database, node.database):
        one.close()


def test_any_changed_byte_is_refused_before_anything_is_written(backed_up, tmp_path):
    data = backed_up.read_bytes()
    with tarfile.open(backed_up) as tar:
        members = tar.getmembers()
    places = [place for one in members for place in (one.offset, one.offset + 130, one.offset_data + one.size // 2)]
    places += np.random.default_rng(0).integers(0, members[0].size, 5).tolist()
    assert len(places) > 15
    for place in places:
        (tmp_path / "changed.tar").write_bytes(data[:place] + bytes([data[place] ^ 1]) + data[place + 1 :])
        with pytest.raises(IntegrityError, match=r"changed\.tar"):
            hilum.restore(tmp_path / "changed.tar", folder=tmp_path / "again")
    for end in (100, len(data) // 2, members[-1].offset):
        (tmp_path / "changed.tar").write_bytes(data[:end])
        with pytest.raises(IntegrityError):
            hilum.restore(tmp_path / "changed.tar", folder=tmp_path / "again")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["changed.tar"]


@pytest.mark.parametrize("name", ["../out", "/out", "studies/../../out", "a\\b"])
@pytest.mark.parametrize("kind", [tarfile.REGTYPE, tarfile.SYMTYPE])
def test_a_path_that_leads_out_and_a_link_are_refused(backed_up, tmp_path, name, kind):
    (tmp_path / "node.tar").write_bytes(backed_up.read_bytes())
    with tarfile.open(tmp_path / "node.tar", "a") as tar:
        member = tarfile.TarInfo(name if kind == tarfile.REGTYPE else "studies/link")
        member.type, member.linkname, member.size = kind, name, 0
        tar.addfile(member, io.BytesIO(b""))
    with pytest.raises(IntegrityError, match="no file within the node's folder"):
        hilum.restore(tmp_path / "node.tar", folder=tmp_path / "deep" / "again")
    assert sorted(path.name for path in tmp_path.rglob("*")) == ["node.tar"]


def test_a_folder_that_holds_something_keeps_it(backed_up, tmp_path):
    (tmp_path / "again").mkdir()
    (tmp_path / "again" / "letter.txt").write_text("mine")
    with pytest.raises(UsageError, match="holds something"):
        hilum.restore(backed_up, folder=tmp_path / "again")
    assert [path.name for path in tmp_path.rglob("*")] == ["again", "letter.txt"]
    (tmp_path / "again" / "letter.txt").unlink()
    assert hilum.restore(backed_up, folder=tmp_path / "again").node.files > 1
    with pytest.raises(UsageError, match="no node that was started"):
        hilum.backup(tmp_path, out=tmp_path / "none.tar")
    with pytest.raises(UsageError, match=r"database\.url"):
        hilum.restore(backed_up, folder=tmp_path / "third", database="postgresql://me:secret@host/node")
    with pytest.raises(UsageError, match="exists already"):
        hilum.backup(tmp_path / "again", out=backed_up)


@contextmanager
def full_disk(room: int) -> Iterator[None]:
    """No file of this process can grow beyond so many bytes, which is what a full disk is like."""
    before, (soft, hard) = signal.signal(signal.SIGXFSZ, signal.SIG_IGN), resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (room, hard))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        signal.signal(signal.SIGXFSZ, before)


def test_on_a_full_disk_neither_leaves_half_of_anything(backed_up, tmp_path):
    folder = tmp_path / "again"
    with full_disk(100_000), pytest.raises(ResourceError, match="cannot be written"):
        hilum.restore(backed_up, folder=folder)
    assert list(tmp_path.iterdir()) == []
    hilum.restore(backed_up, folder=folder)
    with full_disk(100_000), pytest.raises(ResourceError, match="cannot be"):
        hilum.backup(folder, out=tmp_path / "node.tar")
    assert [path.name for path in tmp_path.iterdir()] == ["again"]


def test_without_images_studies_are_gone_until_they_come_again(node, mr, tmp_path):
    hilum.backup(node.settings.folder, out=tmp_path / "node.tar", without_images=True)
    restored = hilum.restore(tmp_path / "node.tar", folder=tmp_path / "again")
    assert "no images" in restored.notes[0] and not list((tmp_path / "again").rglob("studies/*"))
    again = SmallNode(tmp_path / "again", *[one.path for one in node.settings.models.values()])
    [study] = again.rows(tables.STUDIES)
    assert (study.state, study.outcome) == ("gone", "answered") and study.attributes
    again.receive(*mr)
    again.work()
    [study], [job] = again.rows(tables.STUDIES), again.rows(tables.JOBS)
    assert (study.state, study.revision, job.state) == ("done", 2, "done")
    again.store.close()
    again.database.close()


def test_what_is_not_there_or_not_as_it_was_is_named(node, tmp_path):
    [gone, changed, *_] = [row.path for row in node.rows(tables.INSTANCES)]
    (node.settings.folder / gone).unlink()
    (node.settings.folder / changed).write_bytes(b"something else")
    backup = hilum.backup(node.settings.folder, out=tmp_path / "node.tar")
    assert (backup.absent, backup.changed) == ((gone,), (changed,))
    assert f"not there: {gone}" in repr(backup)


def test_retention_waits_for_a_backup(node):
    section = configuration.RetentionSection(images_days=1e-9)
    retention = Retention(node.settings.model_copy(update={"retention": section}), node.database)
    with node_folder.hold_retention(node.settings.folder):
        assert retention.round() == 0
    retention._due = 0.0
    assert retention.round() == 1


def test_another_patient_key_is_said(backed_up, tmp_path, monkeypatch):
    monkeypatch.setenv("HILUM_PATIENT_KEY", "another one")
    restored = hilum.restore(backed_up, folder=tmp_path / "again")
    assert ["not that of the backup" in note for note in restored.notes] == [True]


def of_first_revision(url: str) -> None:
    """A database as the first release left it, with a study."""
    database = record_database.open_database(url)
    words = (
        Path(hilum.__file__).parent / "service" / "records" / "migrations" / f"first_{database.engine.dialect.name}.sql"
    )
    with database.write() as connection:
        for statement in words.read_text().split(";"):
            if statement.strip():
                connection.exec_driver_sql(statement)
        connection.exec_driver_sql("CREATE TABLE alembic_version (version_num VARCHAR(32) NOT NULL)")
        connection.exec_driver_sql("INSERT INTO alembic_version VALUES ('1')")
        values = "'k', '1.2', 'done', 1, 1, 1.0, 2.0, 1, '[]', '[]', %s"
        columns = "study, uid, state, revision, instances, received_at, last_at, routed, asides, people, is_searchable"
        false = "FALSE" if database.skips_locked else "0"
        connection.exec_driver_sql(f"INSERT INTO studies ({columns}) VALUES ({values % false})")  # noqa: S608
    database.close()


@pytest.mark.parametrize("kind", ["sqlite", "postgresql"])
def test_older_tables_are_copied_before_they_are_changed(tmp_path, kind, request):
    url = f"sqlite:///{tmp_path / 'node.sqlite'}"
    if kind == "postgresql":
        url = new_database(request.getfixturevalue("postgresql"), "old")
    of_first_revision(url)
    database = migration.migrate_database(url, tmp_path / "backups")
    [copy] = (tmp_path / "backups").iterdir()
    with database.read() as connection:
        [study] = connection.execute(select(tables.STUDIES)).all()
        assert (study.study, study.objects_gone_at, migration.stored_revision(connection)) == ("k", None, "2")
    if kind == "sqlite":
        old = record_database.open_to_read(copy)
        with old.read() as connection:
            assert migration.stored_revision(connection) == "1"
            assert "objects_gone_at" not in connection.exec_driver_sql("SELECT * FROM studies").keys()  # noqa: SIM118
    else:
        assert copy.read_bytes()[:5] == b"PGDMP"
    for _ in range(4):
        database_copies.keep_copy(database, tmp_path / "backups", "2")
    assert len(list((tmp_path / "backups").iterdir())) == 3 and not copy.exists()
    migration.migrate_database(url, tmp_path / "backups").close()  # which has nothing to do
    assert len(list((tmp_path / "backups").iterdir())) == 3
    database.close()


def test_tables_of_a_newer_version_are_refused_in_one_line_and_left(tmp_path):
    settings = configuration.read_settings(None, (), tmp_path / "node", dicom={"port": 0}, http={"port": 0})
    supervisor.prepare_node(settings)
    database = with_tables(settings.database_url)
    with database.write() as connection:
        connection.exec_driver_sql("UPDATE alembic_version SET version_num = '7'")
    before = all_rows(database)
    with pytest.raises(UsageError, match="of revision 7, and this one knows 2") as refused:
        supervisor.prepare_node(settings)
    assert "\n" not in str(refused.value) and all_rows(database) == before
    hilum.backup(tmp_path / "node", out=tmp_path / "node.tar")
    with pytest.raises(HilumError, match="of revision 7"):
        node_backup.restore_node(tmp_path / "node.tar", tmp_path / "again")
    assert not (tmp_path / "again").exists()
    database.close()
