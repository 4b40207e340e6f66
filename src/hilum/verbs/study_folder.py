"""The folder of a study: its plan, sealed once it is locked, and what is written afterwards."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from contextlib import ExitStack
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import cached_property
from pathlib import Path
from typing import Any, NotRequired

from typing_extensions import TypedDict

from hilum import work_state
from hilum.documents import document_pages, guidelines
from hilum.documents.subjects import DocumentSubject
from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import atomic, csv_text, structured_text
from hilum.lazy import pandas as pd
from hilum.report import page_blocks
from hilum.runtime import record_files
from hilum.runtime.record_files import MANIFEST_SCHEMA
from hilum.studies import concealment, randomisation, trial_protocol
from hilum.studies.randomisation import Allocation
from hilum.studies.trial_protocol import ARM, PARTICIPANT, Study
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import RecordSchema

PLAN = "study.toml"
RECORD = "study.json"
REGISTRY = "registry.json"
AMENDMENTS = "amendments.json"
MANIFEST = "manifest.json"
LIST, LOG, LOOKS = "allocation.bin", "assignments.csv", "looks.jsonl"
# Documents of a plan, and the lists by which they are filled.
DOCUMENTS = {"protocol.html": "spirit-ai", "sap.html": "sap"}
# They grow after the plan is locked: the first two are tied to each other by the key.
GROWING = (LIST, LOG, LOOKS)
IDENTITY = re.compile(r"\w[\w.:-]{0,63}")


class CountedLook(TypedDict):
    """An analysis of a trial: which, of which data, at which share of the outcomes."""

    look: int
    data: str
    fraction: float
    on: NotRequired[str]


class AmendmentRow(TypedDict):
    """An amendment of a locked plan: when, why, which sections, and the SHA-256 of the plan before and after."""

    on: str
    reason: str
    changed: list[str]
    before: str
    after: str


class AmendmentsRecord(TypedDict):
    """When the plan of a study was locked, and its amendments; plan: as it is now."""

    locked: str
    plan_sha256: str
    amendments: list[AmendmentRow]
    plan: NotRequired[Mapping[str, PlainValue]]


AMENDMENTS_SCHEMA = RecordSchema("hilum.study_amendments", AmendmentsRecord)


def write_plan(folder: Path, text: str, where: str) -> Study:
    """Write a plan with its documents and the fields of a registry. Raises UsageError for a plan with a fault."""
    study = trial_protocol.read_study(text, where)
    (folder / PLAN).write_text(text, encoding="utf-8")
    record_files.write_json(folder / RECORD, "hilum.study", trial_protocol.plan_record(study))
    record_files.write_json(folder / REGISTRY, trial_protocol.REGISTRY_SCHEMA, trial_protocol.registry_record(study))
    subject = DocumentSubject.open(folder)
    for name, listed_in in DOCUMENTS.items():
        filled = guidelines.fill_guideline(guidelines.read_guideline(listed_in), subject, {})
        page = document_pages.compose_document_page(
            filled, subject, before=document_pages.draft_sections(filled, document_pages.metrics_of(subject))
        )
        (folder / name).write_text(page_blocks.render_page(page), encoding="utf-8")
    return study


@dataclass(frozen=True, eq=False)
class StudyFolder:
    """A study that was planned."""

    folder: Path

    @classmethod
    def open(cls, folder: Path, *, is_locked: bool = True) -> StudyFolder:
        """UsageError for another folder or a plan that is not locked; IntegrityError where a byte of it was changed."""
        if not (folder / PLAN).is_file():
            problem = "holds no study.toml"
            raise UsageError(problem, str(folder), "Give the folder of `hilum study plan study.toml --out FOLDER`")
        found = cls(folder)
        if is_locked and not found.is_locked:
            raise UsageError("the plan is not locked", str(folder), f"Lock it: hilum study lock {folder}")
        if is_locked:
            found.refuse_changes()
        return found

    @cached_property
    def study(self) -> Study:
        return trial_protocol.read_study((self.folder / PLAN).read_text(encoding="utf-8"), str(self.folder / PLAN))

    @property
    def is_locked(self) -> bool:
        return (self.folder / MANIFEST).is_file()

    @property
    def is_randomised(self) -> bool:
        return (self.folder / LIST).is_file()

    @property
    def sealed_hashes(self) -> dict[str, str]:
        """{file: SHA-256} of the locked plan."""
        return dict(record_files.read_json(self.folder / MANIFEST, MANIFEST_SCHEMA)["sha256"])

    @property
    def amendments(self) -> AmendmentsRecord:
        """The record of when the plan was locked, and of its amendments."""
        return record_files.read_json(self.folder / AMENDMENTS, AMENDMENTS_SCHEMA)

    def refuse_changes(self) -> None:
        """IntegrityError where a file of the locked plan is not what was locked."""
        try:
            record_files.verify_seal(self.folder, (PLAN, RECORD, REGISTRY, AMENDMENTS))
        except IntegrityError as error:
            remedy = "Restore it; to amend the plan edit study.toml alone and run `hilum study lock --reason TEXT`"
            raise error.stating(problem=f"{error.problem}, and the plan is locked", remedy=remedy) from error

    def lock(self, reason: str) -> AmendmentsRecord:
        """Seal the plan, or an amendment of it; the record of both. Raises UsageError where nothing is to be sealed."""
        now = datetime.now(UTC).isoformat(timespec="seconds")
        if not self.is_locked:
            write_plan(self.folder, (self.folder / PLAN).read_text(encoding="utf-8"), str(self.folder / PLAN))
            record: AmendmentsRecord = {
                "locked": now,
                "plan_sha256": record_files.file_digest(self.folder / PLAN),
                "amendments": [],
            }
        else:
            before, after = self.sealed_hashes[PLAN], record_files.file_digest(self.folder / PLAN)
            if before == after:
                self.refuse_changes()
                raise UsageError("is locked already", str(self.folder), "Go on: hilum study randomise")
            if not reason.strip():
                problem = "study.toml was edited after the plan was locked"
                raise UsageError(problem, str(self.folder), "Restore it, or state why: --reason TEXT")
            if record_files.file_digest(self.folder / AMENDMENTS) != self.sealed_hashes[AMENDMENTS]:
                raise IntegrityError(
                    "was edited", str(self.folder / AMENDMENTS), "Restore it: it states what was locked"
                )
            earlier = self.amendments
            record = {"locked": earlier["locked"], "plan_sha256": earlier["plan_sha256"], "amendments": []}
            changed = self._changed_sections()
            if self.is_randomised and {"design", "arms", "strata", "clusters"} & set(changed):
                problem = "arms, strata or clusters changed after they were randomised"
                raise UsageError(problem, str(self.folder / PLAN), "Restore them, or plan another study")
            entry = AmendmentRow(on=now, reason=reason, changed=changed, before=before, after=after)
            record["amendments"] = [*earlier["amendments"], entry]
            write_plan(self.folder, (self.folder / PLAN).read_text(encoding="utf-8"), str(self.folder / PLAN))
        with work_state.finish_despite_interrupt():
            amended: AmendmentsRecord = {**record, "plan": self.study.model_dump()}
            record_files.write_json(self.folder / AMENDMENTS, AMENDMENTS_SCHEMA, amended)
            record_files.seal_folder(self.folder, apart=GROWING)
        return record

    def _changed_sections(self) -> list[str]:
        """Sections of the plan that are not what was locked."""
        old, new = self.amendments["plan"], self.study.model_dump(mode="json")
        return [name for name in new if old.get(name) != new[name]] or ["words alone"]

    def randomise(self, allocation: Allocation) -> None:
        """Write the encrypted list and an empty log."""
        if self.is_randomised:
            raise UsageError("was randomised already", str(self.folder), "A second list would undo the first")
        self._keep(allocation, [])

    def assign(self, participant: str, levels: Mapping[str, str]) -> str:
        """The next arm, which is logged. Raises UsageError for whoever has one, and for an unknown stratum."""
        if not self.is_randomised:
            raise UsageError("was not randomised", str(self.folder), "Run `hilum study randomise` first")
        key = concealment.allocation_key()
        allocation = concealment.decrypt_allocation((self.folder / LIST).read_bytes(), key, str(self.folder / LIST))
        log = self.folder / LOG
        if not log.is_file() or record_files.file_digest(log) != allocation.log:
            raise IntegrityError("is not the log of these assignments", str(log), "Restore it: it was edited or lost")
        if not IDENTITY.fullmatch(participant):
            problem = f"{participant!r} is no number of a participant"
            raise UsageError(problem, "--participant", "Use letters, digits and . : - _")
        rows = self.assignments.to_dict("records")
        if participant in {row[PARTICIPANT] for row in rows}:
            raise UsageError(f"{participant} was assigned already", "--participant", f"Look it up in {log}")
        clusters = self.study.clusters
        if clusters is not None:
            levels = {**clusters.members.get(participant, {}), **levels}
            name = participant
        else:
            name = randomisation.stratum_of(self.study, levels)
        arm, allocation = allocation.assign(name)
        trial_protocol.refuse_level(self.study, levels)
        if clusters is not None and dict(levels) != clusters.members[participant]:
            raise UsageError(f"{participant} has other strata in the plan", "--set", "Leave out --set")
        now = datetime.now(UTC).isoformat(timespec="seconds")
        self._keep(allocation, [*rows, {PARTICIPANT: participant, ARM: arm, **levels, "assigned_at": now}])
        return arm

    @property
    def assignments(self) -> pd.DataFrame:
        """The log, every cell as text."""
        return csv_text.read_given_table(self.folder / LOG)

    def _keep(self, allocation: Allocation, rows: Sequence[Mapping[Any, Any]]) -> None:
        """Write the rows of the log and the list, which has the log's hash, both or neither."""
        with ExitStack() as stack:
            stack.enter_context(work_state.finish_despite_interrupt())
            own = stack.enter_context(atomic.write_whole(self.folder / LOG, overwrite=True))
            list_file = stack.enter_context(atomic.write_whole(self.folder / LIST, overwrite=True))
            csv_text.write_table(pd.DataFrame(rows, columns=[PARTICIPANT, ARM, *self.study.strata, "assigned_at"]), own)
            list_file.write_bytes(
                concealment.encrypt_allocation(
                    allocation.with_log(record_files.file_digest(own)), concealment.allocation_key()
                )
            )

    @property
    def looks(self) -> list[CountedLook]:
        """The analyses so far. Raises IntegrityError for a damaged ledger."""
        path = self.folder / LOOKS
        if not path.is_file():
            return []
        try:
            lines = [structured_text.parse_json(line) for line in path.read_text(encoding="utf-8").splitlines()]
            return [CountedLook(look=one["look"], data=one["data"], fraction=one["fraction"]) for one in lines]
        except (ValueError, TypeError, KeyError) as error:
            raise IntegrityError("is damaged", str(path), "Restore it: it counts the looks") from error

    def note_look(self, look: CountedLook) -> None:
        """Count an analysis."""
        with (self.folder / LOOKS).open("a", encoding="utf-8") as file:
            file.write(json.dumps(look) + "\n")
