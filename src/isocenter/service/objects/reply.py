"""The keeper's answer to a peer whose association is still open: two files in the folder of its server."""

from __future__ import annotations

import json
import time
import uuid
from collections.abc import Collection
from dataclasses import dataclass
from pathlib import Path

from isocenter.files import parse_json

LOOK_S = 0.05


@dataclass(frozen=True)
class Reply:
    """The place of one answer: with `.open` beside it while the peer is there, and `.answer` until the peer has it."""

    place: Path

    @classmethod
    def begun(cls, folder: Path) -> Reply:
        """A place for an answer in a writer's folder, which somebody waits for from now on."""
        made = cls(folder / f"reply-{uuid.uuid4().hex}")
        made._open.touch()
        return made

    @property
    def _open(self) -> Path:
        return self.place.with_suffix(".open")

    @property
    def _answer(self) -> Path:
        return self.place.with_suffix(".answer")

    def come(self) -> list[str] | None:
        """The answer, once the keeper has given it."""
        try:
            return list(parse_json(self._answer.read_text(encoding="utf-8")))
        except FileNotFoundError:
            return None

    def close(self, *, is_delivered: bool = False) -> None:
        """Wait no longer. is_delivered: the peer has the answer."""
        if is_delivered:
            self._answer.unlink(missing_ok=True)
        self._open.unlink(missing_ok=True)

    def give(self, answer: Collection[str], wait_s: float) -> bool:
        """Whether the peer got the answer on its association; false where that is closed, or takes longer."""
        if not self._open.exists():
            return False
        partial = self.place.with_suffix(".partial")
        try:
            partial.write_text(json.dumps(sorted(answer)), encoding="utf-8")
            partial.rename(self._answer)
        except OSError:  # the disk is full, or who waited has died
            return False
        until = time.monotonic() + wait_s
        while self._answer.exists() and self._open.exists() and time.monotonic() < until:
            time.sleep(LOOK_S)
        try:
            self._answer.unlink()
        except FileNotFoundError:  # it was taken away because the peer has it
            return True
        return False
