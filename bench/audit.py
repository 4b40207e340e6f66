"""The audit of a node: how fast it is checked, whether every change is found, and how many events writers get in.

    python bench/audit.py --record

A hundred thousand sealed events are verified in the node's database and in an export. A thousand times one byte of an
export is another, or one of its lines is missing, doubled, or has changed places with another. Eight processes write
events into PostgreSQL, each in a transaction of its own, first at 25 a second each, then as fast as they can, while
the node's own threads seal them. Whether the node takes studies as fast as before, `bench/node_load.py` says.
"""

from __future__ import annotations

import multiprocessing
import sys
import tempfile
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from beside import arguments, record
from sqlalchemy import func, select

import isocenter
from isocenter.errors import IntegrityError
from isocenter.service import configuration, supervisor
from isocenter.service._node_threads import AuditSealing
from isocenter.service.records import audit_records, migration, record_database, tables
from isocenter.service.records import audit_records as events_of
from isocenter.service.records.actor import Actor
from isocenter.service.records.record_database import Database, DatabaseClock

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from service.conftest import postgresql_server

EVENTS, CHANGED, CHANGES, WRITERS, ASKED_S, ASKED_RATE = 100_000, 1000, 1000, 8, 5.0, 200
KINDS = ("byte", "removed", "doubled", "swapped")
EVE = Actor("eve", "radiologist", "10.0.0.7")


def main() -> None:
    parser = arguments(__doc__, repeats=1)
    parser.add_argument("--seconds", type=float, default=30.0, help="of writing, at each rate")
    given = parser.parse_args()
    share = 100 if given.small else 1
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        checked = check_times(folder / "large", EVENTS // share)
        found = changes_found(folder / "small", CHANGES // share)
    with postgresql_server() as server:
        written = [rate(server.url, pause, given.seconds / share) for pause in (WRITERS / ASKED_RATE, 0.0)]
    lines = [
        "| measured | value | asked |",
        "|---|---|---|",
        f"| {EVENTS // share:,} events verified in SQLite, s | {checked['database']:.2f} | {ASKED_S:g} |",
        f"| the same in an export, s | {checked['file']:.2f} | {ASKED_S:g} |",
        f"| changes found, of {CHANGES // share:,} | {sum(found.values())} | all |",
    ]
    for one, words in zip(written, (f"asked for {ASKED_RATE} a second", "as fast as they can"), strict=True):
        lines += [
            f"| events a second of {WRITERS} writers on PostgreSQL, {words} | {one['rate']:.0f} | {ASKED_RATE} |",
            f"| 99 % of these were written within, ms | {one['ms_99']:.1f} | |",
            f"| the oldest that was not sealed, s | {one['oldest_s']:.2f} | 2 |",
        ]
    text = "\n".join(lines)
    print(text)
    if given.record:
        record("audit", "The audit of a node", text, {"checked": checked, "found": found, "written": written})


def check_times(folder: Path, count: int) -> dict[str, float]:
    """Seconds that a check of so many events takes, by where they lie."""
    with _node(folder) as database:
        _fill(database, count)
    export = folder / "audit.jsonl"
    isocenter.export_audit(folder, out=export)
    times = {}
    for name, place in (("database", folder), ("file", export)):
        began = time.perf_counter()
        assert isocenter.verify_audit(place).events == count
        times[name] = time.perf_counter() - began
    return times


def changes_found(folder: Path, changes: int) -> dict[str, int]:
    """{kind: how many random changes of this kind were found} in an export of which the head is known."""
    with _node(folder) as database:
        _fill(database, CHANGED)
    export, random = folder / "audit.jsonl", np.random.default_rng(0)
    isocenter.export_audit(folder, out=export)
    head, lines = isocenter.verify_audit(export).head, export.read_bytes().splitlines(keepends=True)
    found = dict.fromkeys(KINDS, 0)
    for number in range(changes):
        kind = KINDS[number % len(KINDS)]
        export.write_bytes(b"".join(_changed(lines, kind, random)))
        try:
            isocenter.verify_audit(export, head=head)
        except IntegrityError:
            found[kind] += 1
    return found


def _changed(lines: list[bytes], kind: str, random: np.random.Generator) -> list[bytes]:
    changed, (at, other) = list(lines), random.choice(len(lines), 2, replace=False)
    if kind == "byte":
        line = bytearray(changed[at])
        place = random.integers(len(line))
        line[place] = (line[place] + random.integers(1, 256)) % 256
        changed[at] = bytes(line)
    elif kind == "removed":
        del changed[at]
    elif kind == "doubled":
        changed.insert(other, changed[at])
    else:
        changed[at], changed[other] = changed[other], changed[at]
    return changed


def rate(url: str, pause_s: float, seconds: float) -> dict[str, float]:
    """Events a second that writers get in, and how long the oldest waits for its seal."""
    database, stop = migration.migrate_database(url), threading.Event()
    sealing = AuditSealing(configuration.read_settings(None, [], Path("node")), database)
    sealing.start(stop)
    oldest = 0.0
    context = multiprocessing.get_context("spawn")
    ready, go = context.Barrier(WRITERS + 1), context.Queue()
    writers = [context.Process(target=_write, args=(url, pause_s, seconds, ready, go)) for _ in range(WRITERS)]
    for writer in writers:
        writer.start()
    ready.wait()
    began = time.perf_counter()
    while any(writer.is_alive() for writer in writers) and go.qsize() < WRITERS:
        with database.read() as connection:
            waiting = select(DatabaseClock() - func.min(tables.audit.c.at)).where(tables.audit.c.sequence.is_(None))
            oldest = max(oldest, connection.execute(waiting).scalar() or 0.0)
        time.sleep(0.1)
    took = np.concatenate([go.get() for _ in writers])
    lasted = time.perf_counter() - began
    for writer in writers:
        writer.join()
    stop.set()
    sealing.finish(time.monotonic() + 30)
    database.close()
    return {"rate": len(took) / lasted, "ms_99": float(np.quantile(took, 0.99)) * 1000, "oldest_s": float(oldest)}


def _write(url: str, pause_s: float, seconds: float, ready: Any, go: Any) -> None:
    """Write events for a while, one every so often, and say how long each took (s)."""
    database, took = record_database.open_database(url), list[float]()
    ready.wait()
    began = due = time.perf_counter()
    while due < began + seconds:
        time.sleep(max(0.0, due - time.perf_counter()))
        at = time.perf_counter()
        with database.write() as connection:
            events_of.record_event(connection, "view", "a" * 32, actor=EVE, study="a" * 32, detail={"n": len(took)})
        took.append(time.perf_counter() - at)
        due = due + pause_s if pause_s else time.perf_counter()
    database.close()
    go.put(np.array(took))


@contextmanager
def _node(folder: Path) -> Iterator[Database]:
    """A node of which nothing runs."""
    settings = supervisor.prepare_node(
        configuration.read_settings(None, [], folder, dicom={"port": 0}, http={"port": 0})
    )
    database = record_database.open_database(settings.database_url)
    yield database
    database.close()


def _fill(database: Database, count: int) -> None:
    with database.write() as connection:
        for number in range(count):
            detail = {"reason": "no rule takes it", "n": number}
            events_of.record_event(connection, "view", f"{number:032x}", actor=EVE, study="a" * 32, detail=detail)
    audit_records.seal_events(database, "north")


if __name__ == "__main__":
    main()
