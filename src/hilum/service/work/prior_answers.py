"""The earlier study of a job: asked of peers where the node holds none, and its answer read for the comparison."""

from __future__ import annotations

import re
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import requests
from sqlalchemy import Row, select

from hilum.errors import DatasetError, HilumError
from hilum.files import file_formats
from hilum.files.dicom.writing.dicom_answers import EarlierObjects
from hilum.files.storage import structured_text
from hilum.prediction import predictors
from hilum.prediction.earlier_study import EarlierStudy
from hilum.runtime import Model
from hilum.service import _delivering
from hilum.service.configuration import NodeSettings, PeerSection, PriorSection
from hilum.service.dicom import asking, dicom_listening
from hilum.service.dicom.sending import PeerError
from hilum.service.objects import multipart
from hilum.service.objects.dicom_json import DicomJson
from hilum.service.objects.object_store import ObjectStore
from hilum.service.records.study_index import StudyIndex
from hilum.service.records.tables import FINDING_ROWS, JOBS
from hilum.service.routing import prior_studies, routing_facts
from hilum.tasks import properties
from hilum.values import Finding
from hilum.values.finding_records import FindingRow

RESULTS, NAME = "results", "answer"
KEYWORDS = {
    "0020000D": "StudyInstanceUID",
    "00080020": "StudyDate",
    "00100020": "PatientID",
    "00100021": "IssuerOfPatientID",
}
CHUNK = 1 << 20
# Before it is looked again whether the study of a peer has been answered (s).
LOOK_S = 5.0


@dataclass(frozen=True)
class EarlierAnswer:
    """The answer on an earlier study.

    paths:    of the objects of its series; empty where they are gone
    folder:   of its files
    findings: rows as records keep them
    """

    paths: Sequence[Path]
    folder: Path
    findings: Sequence[FindingRow] = ()
    lesions: Sequence[str] = ()

    @classmethod
    def of_job(cls, index: StudyIndex, settings: NodeSettings, key: str, lesions: Sequence[str]) -> EarlierAnswer:
        """That of a job, on its only series."""
        with index.database.read() as connection:
            job = connection.execute(select(JOBS).where(JOBS.c.job == key)).one()
            mine = select(FINDING_ROWS.c.row).where(FINDING_ROWS.c.job == key)
            rows = connection.execute(mine.order_by(FINDING_ROWS.c.number)).scalars().all()
        first = next(iter(job.inputs["series"].values()))
        paths = [settings.folder / one.path for one in index.objects_of(job.study, first)]
        return cls(paths, settings.folder / RESULTS / key, rows, lesions)

    @contextmanager
    def open_study(self, model: Model) -> Iterator[EarlierStudy]:
        """The study as the new one is compared with it. Raises DatasetError where its images or its mask are gone."""
        if not self.paths or not (self.folder / f"{NAME}.nii.gz").exists():
            raise DatasetError("the images or the answer of the earlier study are gone", NAME, "Send it again")
        with routing_facts.link_series_folder(self.paths) as folder:
            [case] = routing_facts.cases_of_series(folder)
            tasks = {"": model.task} | {n: one for n, one in properties.leaf_tasks(model.task).items() if n}
            files = {part: self.folder / (f"{NAME}_{part}.nii.gz" if part else f"{NAME}.nii.gz") for part in tasks}
            maps = {
                part: (np.asarray(file_formats.read(path).data)[0], tuple(tasks[part].labels))
                for part, path in files.items()
                if path.exists()
            }
            image = predictors.image_of_case(case)
            if any(values.shape != image.geometry.shape for values, _ in maps.values()):
                raise DatasetError("the images of the earlier study have changed since its answer", NAME, "Reroute it")
            report = self.folder / f"{NAME}_report.dcm"
            yield EarlierStudy(
                image,
                maps,
                [_sized_finding(row) for row in self.findings],
                str(case.covariates.get("body_part") or ""),
                tuple(self.lesions),
                objects=EarlierObjects(self.paths, report if report.exists() else None),
            )


def _sized_finding(row: FindingRow) -> Finding:
    """A finding of a record, as far as its size is asked for."""
    return Finding(str(row["concept"]), row.get("value"), row.get("unit") or "", group=row.get("group") or "")


@dataclass(eq=False)
class PriorSource:
    """Asks peers for the earlier study of a patient, at most once for each job, for one study at most.

    asked: {job: what came of it, in words; empty where a study is on its way}
    """

    settings: NodeSettings
    name: str
    asked: dict[str, str] = field(default_factory=dict)

    def wait_for(self, job: str, made_at: float, study: Row[Any], prior: PriorSection) -> tuple[float, str]:
        """(seconds that the job waits for a peer's study, else 0; why there is no earlier study)."""
        peers = [peer for peer in self.settings.peers if peer.priors]
        days, left = prior_studies.days_before(study.study_date, prior), made_at + prior.limit_s - time.time()
        if days is None or not study.patient_id:
            return 0.0, "no earlier study is looked for: the study states no date or no patient"
        if not peers:
            return 0.0, "no earlier study of the patient is known"
        if job not in self.asked:
            self.asked[job] = self._ask(peers, study, days, max(1.0, left))
        if not self.asked[job] and left > 0:
            return min(LOOK_S, left), ""
        words = self.asked.pop(job) or f"the earlier study of a peer was not answered within {prior.limit_s:g} s"
        return 0.0, f"no earlier study of the patient is known: {words}"

    def _ask(self, peers: Sequence[PeerSection], study: Row[Any], days: tuple[str, str], limit_s: float) -> str:
        """What came of asking each peer; empty where one of them has sent a study."""
        issuer = str((study.attributes or {}).get("IssuerOfPatientID") or "")
        sought = {"PatientID": str(study.patient_id), "IssuerOfPatientID": issuer}
        reasons, until = list[str](), time.monotonic() + limit_s
        for peer in peers:
            left = until - time.monotonic()
            if left <= 0:
                reasons.append(f"{peer.name} was not asked in time")
                continue
            try:
                ask = self._ask_dicom if peer.dicomweb is None else self._ask_web
                if ask(peer, sought, days, left):
                    return ""
                reasons.append(f"{peer.name} holds none")
            except (HilumError, OSError, ValueError) as error:
                problem = error.problem if isinstance(error, HilumError) else type(error).__name__
                reasons.append(f"{peer.name} did not answer ({problem})")
        return "; ".join(reasons)

    def _ask_dicom(self, peer: PeerSection, sought: Mapping[str, str], days: tuple[str, str], left: float) -> bool:
        """By C-FIND and C-MOVE to our receiver. Raises PeerError."""
        us, to = self.settings.dicom.ae_title, dicom_listening.peer_of_settings(peer)
        wanted = {**sought, "StudyDate": "-".join(days), "StudyInstanceUID": ""}
        uid = _newest(asking.find_records(us, to, wanted, "STUDY", idle_s=left), sought, days)
        return uid is not None and asking.move_objects(us, to, {"StudyInstanceUID": uid}, "STUDY", us, idle_s=left) > 0

    def _ask_web(self, peer: PeerSection, sought: Mapping[str, str], days: tuple[str, str], left: float) -> bool:
        """By QIDO-RS and WADO-RS. Raises PeerError."""
        session = _delivering.open_peer_session(peer.name)
        url = str(peer.dicomweb).rstrip("/")
        query = {name: text for name, text in sought.items() if text} | {"StudyDate": "-".join(days)}
        query |= {"includefield": "IssuerOfPatientID"}
        found = session.get(f"{url}/studies", params=query, timeout=left, headers={"Accept": "application/dicom+json"})
        _refuse_failed(found, peer)
        rows = [_texts(row) for row in structured_text.parse_json(found.content)] if found.content.strip() else []
        if (uid := _newest(rows, sought, days)) is None:
            return False
        kept = session.get(f"{url}/studies/{uid}", timeout=left, headers={"Accept": multipart.AS_STORED}, stream=True)
        with kept:
            _refuse_failed(kept, peer)
            store = ObjectStore(self.settings.folder, f"priors-{re.sub(r'[^A-Za-z0-9]', '-', self.name)}")
            try:
                return (
                    multipart.keep_objects(
                        kept.headers.get("Content-Type", ""), kept.iter_content(CHUNK), store, peer.name
                    )
                    > 0
                )
            finally:
                store.close()


def _refuse_failed(answer: requests.Response, peer: PeerSection) -> None:
    if not answer.ok or answer.status_code in _delivering.REDIRECTS:
        raise PeerError(f"answers with status {answer.status_code}", peer.name, "See what its log says")


def _texts(row: DicomJson) -> dict[str, str]:
    """{keyword: text} of a study in the JSON of DICOM. PS3.18 F.2"""
    return {name: str(next(iter(row.get(tag, {}).get("Value", [])), "")) for tag, name in KEYWORDS.items()}


def _newest(rows: Sequence[Mapping[str, str]], sought: Mapping[str, str], days: tuple[str, str]) -> str | None:
    """The UID of the newest study of this patient within these days: peers may answer with more than was asked for.

    One that states another issuer is of another person with the same number.
    """
    fitting = [
        (row.get("StudyDate", ""), row["StudyInstanceUID"])
        for row in rows
        if row.get("StudyInstanceUID")
        and days[0] <= row.get("StudyDate", "") <= days[1]
        and row.get("PatientID", sought["PatientID"]) == sought["PatientID"]
        and row.get("IssuerOfPatientID", "") in ("", sought["IssuerOfPatientID"])
    ]
    return max(fitting)[1] if fitting else None
