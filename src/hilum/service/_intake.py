"""Further ways in: a folder that is watched, and an Orthanc whose changes are followed."""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from functools import cached_property
from pathlib import Path
from typing import Any

from requests import Response

from hilum.errors import FormatError, ResourceError
from hilum.files.storage import atomic, structured_text
from hilum.service import _delivering, _node_threads
from hilum.service._delivering import REDIRECTS, HttpSession
from hilum.service.configuration import NodeSettings
from hilum.service.objects import multipart
from hilum.service.objects.object_store import ObjectStore
from hilum.work_state import log

# A file counts when it has not changed for so long; between two looks at a folder or a feed; and after a failure (s).
SETTLED_S, LOOK_S, AGAIN_S = 5.0, 1.0, 10.0
CHUNK, CHANGES, TIMEOUT_S = 1 << 20, 100, 60
GONE = 404
POSITION = "front.json"
# "user:password" of the Orthanc in front; no secret stands in a file.
CREDENTIALS = "HILUM_FRONT_CREDENTIALS"


@dataclass(eq=False)
class WatchedFolder:
    """Takes in every DICOM file of a folder once; the files stay where they are.

    seen: {path: ((bytes, time of change), since when it is so)}, as the last look found them; None once it was taken
    """

    folder: Path
    store: ObjectStore
    seen: dict[Path, tuple[tuple[int, int], float | None]] = field(default_factory=dict)

    def look(self) -> int:
        """Take in what has come to rest, and return the number of objects.

        Rest is that two looks find the same: the clock that stamps files may be another machine's.
        """
        before, self.seen, taken = self.seen, {}, 0
        for path in sorted(self.folder.rglob("*")):
            if path.is_symlink() or not path.is_file():
                continue
            try:
                status = path.stat()
            except FileNotFoundError:  # somebody has just moved it
                continue
            state, now = (status.st_size, status.st_mtime_ns), time.monotonic()
            last, since = before.get(path, (None, None))
            if last != state:
                since = now
            elif since is not None and now - since >= SETTLED_S:
                taken, since = taken + self._take(path), None
            self.seen[path] = (state, since)
        return taken

    def _take(self, path: Path) -> bool:
        try:
            with self.store.open_part() as part, path.open("rb") as file:
                while data := file.read(CHUNK):
                    part.write(data)
                self.store.keep(part, "watch", "watch")
        except FormatError:
            log.info("a file of the watched folder is not a DICOM object with its UIDs")
            return False
        except (FileNotFoundError, PermissionError) as error:
            log.warning("a file of the watched folder cannot be read: %s", error.strerror)
            return False
        return True


@dataclass(eq=False)
class OrthancFront:
    """Follows the changes of an Orthanc, and fetches each series that has come to rest there by WADO-RS.

    url: of the Orthanc; place: the file that keeps how far its changes are known
    """

    url: str
    store: ObjectStore
    place: Path

    def look(self) -> int:
        """Fetch what is new, in the order of the changes; return the number of objects. Raises ResourceError."""
        try:
            return sum(self._fetch_series(*uids) for uids in self._changes())
        except (OSError, ValueError, TypeError, KeyError, FormatError) as error:
            remedy = f"Is it running, and {CREDENTIALS} right?"
            raise ResourceError(f"the Orthanc does not answer: {type(error).__name__}", self.url, remedy) from error

    def _changes(self) -> Iterator[tuple[str, str]]:
        """Study and series UIDs of series that are new; a change is passed once its series was fetched."""
        self._begin_again()
        while True:
            since = self._last_change
            page = self._json(f"changes?since={since}&limit={CHANGES}")
            for change in page["Changes"]:
                if change["ChangeType"] == "StableSeries" and (uids := self._uids(change["ID"])) is not None:
                    yield uids
                self._note(change["Seq"])
            if page["Done"]:
                return

    @property
    def _last_change(self) -> int:
        """The number of the last change that is known."""
        return int(structured_text.load_json(self.place)["last"]) if self.place.exists() else 0

    def _note(self, last: int) -> None:
        with atomic.write_whole(self.place, overwrite=True) as partial:
            partial.write_text(json.dumps({"last": last}), encoding="utf-8")

    def _begin_again(self) -> None:
        """Follow an Orthanc from its first change that has fewer than are known: its database was made anew."""
        counts = self._last_change
        if counts > int(self._json("changes?last").get("Last", counts)):
            log.warning("the Orthanc counts its changes anew: all of its series are fetched again")
            self._note(0)

    def _uids(self, key: str) -> tuple[str, str] | None:
        """Study and series UID of a series; None where it is no longer there."""
        try:
            series = self._json(f"series/{key}")
            study = self._json(f"studies/{series['ParentStudy']}")
        except OSError as error:  # requests' errors are of this kind
            if getattr(getattr(error, "response", None), "status_code", None) == GONE:
                return None
            raise
        return study["MainDicomTags"]["StudyInstanceUID"], series["MainDicomTags"]["SeriesInstanceUID"]

    def _json(self, path: str) -> Any:
        return structured_text.parse_json(self._got(path).content)

    def _got(self, path: str, **how: Any) -> Response:
        """An answer with content. Raises ResourceError for a redirect: our password and its images are for one host."""
        answer = self._session.get(f"{self.url.rstrip('/')}/{path}", timeout=TIMEOUT_S, **how)
        if answer.status_code in REDIRECTS:
            answer.close()
            raise ResourceError("redirects to another address", self.url, "Give that one as front.orthanc")
        answer.raise_for_status()
        return answer

    @cached_property
    def _session(self) -> HttpSession:
        return _delivering.open_http_session(CREDENTIALS)

    def _fetch_series(self, study: str, series: str) -> int:
        """Keep the objects of a series."""
        path = f"dicom-web/studies/{study}/series/{series}"
        with self._got(path, headers={"Accept": multipart.AS_STORED}, stream=True) as answer:
            parts = answer.iter_content(CHUNK)
            return multipart.keep_objects(answer.headers.get("Content-Type", ""), parts, self.store, "front")


def start_intake(settings: NodeSettings, stop: threading.Event) -> list[threading.Thread]:
    """A thread for each further way in that the settings name."""
    ways: list[Callable[[], int]] = []
    if settings.watch is not None or settings.front is not None:
        store = ObjectStore(settings.folder, "intake", sync=settings.dicom.sync, min_free_gb=settings.node.min_free_gb)
        if settings.watch is not None:
            ways.append(WatchedFolder(settings.watch.folder, store).look)
        if settings.front is not None:
            ways.append(OrthancFront(settings.front.orthanc, store, settings.folder / POSITION).look)
    pauses = {"rest_s": LOOK_S, "idle_s": 0.0, "again_s": AGAIN_S}
    threads = [
        threading.Thread(target=_node_threads.repeat_step, args=(look, stop, "intake"), kwargs=pauses, daemon=True)
        for look in ways
    ]
    for thread in threads:
        thread.start()
    return threads
