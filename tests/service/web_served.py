"""A node's web process in a temporary folder, and what its keeper would do meanwhile."""

from __future__ import annotations

import hashlib
import json
import ssl
import threading
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import asdict, dataclass, field
from pathlib import Path

import httpx

from hilum.service import configuration
from hilum.service.configuration import NodeSettings, PeerSection
from hilum.service.model_facts import ModelFacts
from hilum.service.node_folder import MODELS
from hilum.service.objects import journal, object_store
from hilum.service.objects.journal import Received
from hilum.service.records.job_queue import JobOutcome, Jobs, ResultFile
from hilum.service.records.record_database import Database
from hilum.service.records.study_index import Arrival, StudyIndex
from hilum.service.web import server
from service.databases import with_tables

BOUNDARY = "xx--yy"
RELATED = {"Content-Type": f'multipart/related; type="application/dicom"; boundary="{BOUNDARY}"'}


@dataclass
class Served:
    """A node that answers at `url`."""

    url: str
    settings: NodeSettings
    database: Database
    client: httpx.Client
    read: dict[str, int] = field(default_factory=dict)

    def store(self, *files: bytes, path: str = "/dicomweb/studies") -> httpx.Response:
        """The answer to files sent by STOW-RS, which the records then know."""
        answer = self.client.post(path, content=related(*files), headers=RELATED)
        self.keep()
        return answer

    def keep(self) -> None:
        """Enter what came in, as the keeper does."""
        lines, now = journal.read_journals(self.settings.folder / "inbox", self.read)
        self.read |= now
        StudyIndex(self.database).add(
            [self._arrival(one) for one in lines if isinstance(one, Received) and not one.is_aside]
        )

    def complete(self, study: str, attributes: Mapping[str, object] | None = None, **facts: object) -> None:
        """Mark a study as complete; facts: of its only series."""
        index, key = StudyIndex(self.database), object_store.uid_key(study)
        series = {row.series: {"attributes": attributes, **facts} for row in index.series_of(key)} if facts else {}
        assert index.complete(key, 1, attributes or {}, series)

    def answer(self, study: str, files: Mapping[str, tuple[bytes, str | None]], send: list[str]) -> str:
        """A job of a study with its result: {name: (bytes, SOPInstanceUID)}; how the job is called."""
        jobs, key = Jobs(self.database), object_store.uid_key(study)
        series = StudyIndex(self.database).series_of(key)[0].series
        with self.database.write() as connection:
            columns = {"rule": "all", "model": "m", "model_hash": "h", "revision": 1, "priority": 2}
            jobs.add(connection, study=key, inputs_hash="i", inputs={"series": {"image": series}}, **columns)
        job = jobs.claim("w")
        folder = self.settings.folder / "results" / job.job
        folder.mkdir(parents=True)
        for name, (data, _) in files.items():
            (folder / name).write_bytes(data)
        made = [
            ResultFile(name, "seg" if uid else "findings", len(data), "0" * 64, uid and "1.2", uid)
            for name, (data, uid) in files.items()
        ]
        assert jobs.finish(job, JobOutcome("answered", answers=made, send=send))
        return job.job

    def _arrival(self, one: Received) -> Arrival:
        digest = hashlib.sha256((self.settings.folder / one.path).read_bytes()).hexdigest()
        keys = [object_store.uid_key(uid) for uid in (one.study, one.series, one.instance)]
        uids = (one.study, one.series, one.instance, one.sop_class, one.syntax)
        return Arrival(*keys, *uids, one.path, one.bytes, digest, one.peer, one.way)


def related(*files: bytes) -> bytes:
    """Files as the parts of a multipart body."""
    head = f"--{BOUNDARY}\r\nContent-Type: application/dicom\r\n\r\n".encode()
    return b"".join(head + file + b"\r\n" for file in files) + f"--{BOUNDARY}--\r\n".encode()


@contextmanager
def served(
    folder: Path,
    token: str | None = None,
    peers: Sequence[PeerSection] = (),
    models: Sequence[Path] = (),
    **changes: Mapping[str, object],
) -> Iterator[Served]:
    """A node's web process on a free port."""
    changes = {"http": {"port": 0}, "node": {"min_free_gb": 0}, **changes}
    settings = configuration.read_settings(None, models, folder, **changes).model_copy(update={"peers": list(peers)})
    database = with_tables(settings.database_url)
    facts = [asdict(ModelFacts(name, "h", "MR")) for name in settings.models]
    folder.mkdir(parents=True, exist_ok=True)
    (folder / MODELS).write_text(json.dumps({"schema": "hilum.models", "version": 1, "rows": facts}))
    stop, bound, ports = threading.Event(), threading.Event(), list[int]()

    def tell(port: int) -> None:
        ports.append(port)
        bound.set()

    running = threading.Thread(target=server.run_web, args=(settings, stop, tell))
    running.start()
    headers = {} if token is None else {"Authorization": f"Bearer {token}"}
    try:
        assert bound.wait(60)
        url, tls = f"{settings.http.scheme}://127.0.0.1:{ports[0]}", settings.http.tls
        verify = True if tls is None else ssl.create_default_context(cafile=tls.certificate)
        with httpx.Client(base_url=url, headers=headers, timeout=60, verify=verify) as client:
            yield Served(url, settings, database, client)
    finally:
        stop.set()
        running.join(60)
        database.close()
    assert not running.is_alive()
