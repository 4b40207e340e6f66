"""Rejection notes to peers: what was superseded is taken back where it was sent, once its successor has been sent."""

from __future__ import annotations

import logging
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from isocenter.errors import FormatError
from isocenter.files import file_hash
from isocenter.files.dicom import KEY_OBJECTS, Stamp, stamped, write_rejection
from isocenter.service.records.jobs import REJECTION, Answer
from isocenter.service.records.outbox import Outbox, Superseded, note_name
from isocenter.service.settings import Settings

log = logging.getLogger("isocenter")


@dataclass(frozen=True, eq=False)
class Rejecter:
    """Writes the notes for peers with `reject`, in the keeper's process.

    undone: jobs and peers for which no note can be written, because their files are gone
    """

    settings: Settings
    outbox: Outbox
    undone: set[tuple[str, str]] = field(default_factory=set)

    def round(self) -> int:
        """Put a note into the outbox for each superseded job that a peer has results of; how many are new."""
        due = self.outbox.to_reject([peer.name for peer in self.settings.peers if peer.reject])
        return sum(self._noted(one) for one in due if (one.job, one.peer) not in self.undone)

    def _noted(self, superseded: Superseded) -> bool:
        """Whether there is a note for a job and a peer from now on."""
        folder, name = self.settings.folder / "results" / superseded.job, note_name(superseded.peer)
        there = {folder / one: uid for one, uid in superseded.objects.items() if (folder / one).exists()}
        try:
            answer = self._written(folder / name, there, superseded)
        except FormatError as error:
            log.warning("job %s: no rejection note can be written: %s", superseded.job, error.problem)
            self.undone.add((superseded.job, superseded.peer))
            return False
        return self.outbox.add_note(superseded, answer)

    def _written(self, path: Path, objects: Mapping[Path, str], superseded: Superseded) -> Answer:
        """The note as a file of the job; written again after a crash it is the same."""
        if not objects:
            raise FormatError("the results that it would name are gone", str(path), "Reject them in the PACS")
        write_rejection(objects, path, reason=f"superseded: {superseded.reason}", overwrite=True)
        node = self.settings.node
        stamp = Stamp(node.uid_root, f"{superseded.job} {path.name}", superseded.since, node.text)
        uid = str(stamped(path, stamp).SOPInstanceUID)
        return Answer(path.name, REJECTION, path.stat().st_size, file_hash(path), KEY_OBJECTS, uid)
