"""Databases, nodes and peers that the tests of the service start and stop."""

from __future__ import annotations

import json
import os
import pwd
import shutil
import signal
import subprocess
import tempfile
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Any
from urllib.request import Request, urlopen

import numpy as np
import pytest
from sqlalchemy import text

from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.records import record_database
from hilum.values import Geometry, Image
from ports import free_port
from service.databases import empty, with_tables
from service.receiving import running
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model


def _postgresql() -> Path | None:
    """The folder of PostgreSQL's programs."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin"))
    return found[-1] if found else None


class PostgreSQL:
    """A server of its own, without fsync. folder: where its data stay, and are gone on with; else a temporary one."""

    def __init__(self, folder: Path | None = None) -> None:
        self.programs = _postgresql()
        if self.programs is None:
            pytest.skip("PostgreSQL is not installed")
        self.is_kept, self.port = folder is not None, free_port()
        self.folder = folder or Path(tempfile.mkdtemp(prefix="hilum-pg-"))
        self.folder.mkdir(parents=True, exist_ok=True)
        self.as_user: dict[str, Any] = {}
        if os.geteuid() == 0:  # it refuses to run as root
            account = pwd.getpwnam("postgres")
            self.as_user = {"user": account.pw_uid, "group": account.pw_gid}
            os.chown(self.folder, account.pw_uid, account.pw_gid)
        make = [self.programs / "initdb", "-D", self.folder / "data", "-U", "node", "--auth=trust", "--no-sync"]
        if not (self.folder / "data").exists():
            subprocess.run(make, check=True, capture_output=True, cwd=self.folder, **self.as_user)

    @property
    def url(self) -> str:
        """Of its database."""
        return f"postgresql://node@127.0.0.1:{self.port}/postgres"

    def start(self) -> None:
        """Until it answers."""
        assert self.programs is not None
        command = [self.programs / "postgres", "-D", self.folder / "data", "-p", str(self.port), "-k", self.folder]
        settings = ["-c", "listen_addresses=127.0.0.1", "-c", "fsync=off"]
        log = (self.folder / "log").open("a")
        self.process = subprocess.Popen([*command, *settings], stdout=log, stderr=log, cwd=self.folder, **self.as_user)
        log.close()
        _wait_for(self.url)

    def kill(self) -> None:
        """`kill -9` of the server; its children end by themselves."""
        self.process.kill()
        self.process.wait()

    def close(self) -> None:
        """Stop it, and leave nothing that was not to be kept."""
        self.process.send_signal(signal.SIGINT)  # which waits for no client that is still connected
        self.process.wait(60)
        if not self.is_kept:
            shutil.rmtree(self.folder, ignore_errors=True)


@pytest.fixture(autouse=True)
def own_temporary_folder(monkeypatch):
    """Whatever a test's receiver makes of the place for temporary files ends with the test."""
    monkeypatch.setattr(tempfile, "tempdir", tempfile.gettempdir())


@pytest.fixture
def waited_for(monkeypatch) -> set[Path]:
    """Files and folders whose bytes were waited for until they survive a power cut."""
    places, fsync = set[Path](), os.fsync

    def noted(file: int) -> None:
        places.add(Path(f"/proc/self/fd/{file}").readlink())
        fsync(file)

    monkeypatch.setattr(os, "fsync", noted)
    return places


@contextmanager
def postgresql_server(folder: Path | None = None) -> Iterator[PostgreSQL]:
    """A server that runs; skips where it is not installed. folder: where its data stay."""
    server = PostgreSQL(folder)
    server.start()
    try:
        yield server
    finally:
        server.close()


@pytest.fixture(scope="session")
def postgresql():
    """The URL of a database of PostgreSQL."""
    with postgresql_server() as server:
        yield server.url


def _wait_for(url: str) -> None:
    for _ in range(600):
        database = record_database.open_database(url)
        try:
            with database.engine.connect() as connection:
                connection.execute(text("SELECT 1"))
            return
        except Exception:
            time.sleep(0.1)
        finally:
            database.close()
    raise AssertionError("PostgreSQL did not come up")


@pytest.fixture(params=["sqlite", "postgresql"])
def database(request, tmp_path):
    """An empty database of each kind, with the newest tables."""
    if request.param == "sqlite":
        made = with_tables(f"sqlite:///{tmp_path / 'node.sqlite'}")
    else:
        made = with_tables(request.getfixturevalue("postgresql"))
    yield made
    empty(made)
    made.close()


@dataclass(frozen=True)
class Orthanc:
    """A PACS that the tests start: its DICOM and HTTP ports, and its title."""

    port: int
    http: int
    ae_title: str = "ORTHANC"

    @property
    def url(self) -> str:
        """Of its REST API; `/dicom-web` is below it."""
        return f"http://127.0.0.1:{self.http}"

    def ask(self, path: str, body: object = None, method: str | None = None) -> Any:
        """What its API answers."""
        data = body if body is None or isinstance(body, bytes) else json.dumps(body).encode()
        request = Request(f"{self.url}{path}", data, method=method or ("GET" if data is None else "POST"))  # noqa: S310
        with urlopen(request, timeout=20) as answer:  # noqa: S310
            said = answer.read()
        return json.loads(said) if said[:1] in (b"{", b"[") else said

    def knows(self, name: str, ae_title: str, port: int) -> None:
        """Make another system known to it."""
        about = {"AET": ae_title, "Host": "127.0.0.1", "Port": port, "AllowStorageCommitment": True}
        self.ask(f"/modalities/{name}", about, "PUT")

    def empty(self) -> None:
        """Delete all that it has."""
        for patient in self.ask("/patients"):
            self.ask(f"/patients/{patient}", method="DELETE")


@contextmanager
def orthanc_running(folder: Path) -> Iterator[Orthanc]:
    """An Orthanc with DICOMweb, on free ports, in a temporary folder."""
    program, web = shutil.which("Orthanc"), Path("/usr/share/orthanc/plugins/libOrthancDicomWeb.so")
    if program is None or not web.exists():
        pytest.skip("Orthanc with its plugin for DICOMweb is not installed")
    server = Orthanc(free_port(), free_port())
    always = {f"DicomAlwaysAllow{verb}": True for verb in ("Echo", "Store", "Find", "Get", "Move")}
    settings = always | {
        "StorageDirectory": str(folder / "storage"),
        "IndexDirectory": str(folder / "index"),
        "DicomPort": server.port,
        "HttpPort": server.http,
        "DicomAet": server.ae_title,
        "DicomCheckCalledAet": False,
        "RemoteAccessAllowed": False,
        "AuthenticationEnabled": False,
        "SynchronousCMove": True,
        "UnknownSopClassAccepted": True,
        "StableAge": 1,
        "Plugins": [str(web)],
        "DicomWeb": {"Enable": True},
    }
    (folder / "settings.json").write_text(json.dumps(settings))
    with running([program, folder / "settings.json"], server.http, stderr=subprocess.DEVNULL):
        yield server


@pytest.fixture(scope="session")
def orthanc_server(tmp_path_factory):
    """One Orthanc for all tests."""
    with orthanc_running(tmp_path_factory.mktemp("orthanc")) as server:
        yield server


@pytest.fixture
def orthanc(orthanc_server):
    """An Orthanc that is empty."""
    orthanc_server.empty()
    return orthanc_server


@pytest.fixture
def mr(tmp_path) -> list[Path]:
    """An oblique series of MR with a bright ball."""
    turned = np.array([[0.0, 0.8, 0.6], [1.0, 0.0, 0.0], [0.0, 0.6, -0.8]])
    affine = np.eye(4)
    affine[:3, :3] = turned @ np.diag([1.0, 1.0, 2.5])
    x, y, z = np.indices((24, 20, 8))
    ball = 200 * ((x - 11) ** 2 + (y - 9) ** 2 + 6 * (z - 4) ** 2 < 40) + x
    image = Image(ball[None].astype(np.int16), Geometry((24, 20, 8), affine), modality="MR")
    series_writing.write_series(image, SeriesNames("p", "study", "series"), tmp_path / "mr")
    return sorted((tmp_path / "mr").iterdir())


@pytest.fixture
def small_node(tmp_path) -> Iterator[SmallNode]:
    """A node whose model thresholds."""
    made = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", LEVEL))
    yield made
    made.store.close()
    made.database.close()
