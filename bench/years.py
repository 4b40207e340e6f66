"""A node that deletes, is upgraded, backed up and restored, while studies come in and its processes are killed.

    python bench/years.py --record

Studies are those of `bench/node_load.py`. The first tenth comes into a node without retention, whose database is then
put back to the first revision. `serve` brings it to the newest, and the rest comes in with retention: by age (objects
after 90 s, results after 240 s) and a quota of an eighth of all. Every fiftieth study stands in an incident and has to
stay. Every 20 s a process is killed, and halfway a backup is made. At the end the node is backed up and restored as on
an empty machine, in a process whose home folder is new; its rows, files and audit have to be those of the node.
Above the quota counts what may go: objects of studies that are done and in no incident.
"""

from __future__ import annotations

import os
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter
from contextlib import ExitStack, suppress
from pathlib import Path
from typing import Any

import node_load
import psutil
from beside import arguments, record
from sqlalchemy import func, insert, select, text

import hilum
from hilum.service.objects import object_store
from hilum.service.records import record_database, tables
from hilum.service.records.record_database import Database

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from service.conftest import postgresql_server
from service.thresholds import threshold_model

IMAGES_S, RESULTS_S, DAY_S = 90.0, 240.0, 86400.0
KEPT_SHARE, HARMED, KILLS_S, SETTLE_S = 8, 50, 20.0, 60.0
NEW_COLUMNS = ("objects_gone_at", "results_gone_at")


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--studies", type=int, default=2000, help="on SQLite")
    parser.add_argument("--on-server", type=int, default=500, help="on PostgreSQL")
    parser.add_argument("--minutes", type=float, default=14.0, help="at most, for the studies of one database")
    given = parser.parse_args()
    rows = []
    for kind, count in {"sqlite": given.studies, "postgresql": given.on_server}.items():
        with ExitStack() as stack:
            place = Path(stack.enter_context(tempfile.TemporaryDirectory()))
            server = None if kind == "sqlite" else stack.enter_context(postgresql_server())
            urls = ["sqlite"] * 3 if server is None else _new_databases(server.url)
            rows.append(lived(place, urls, 40 if given.small else count, 60 * given.minutes))
        print(rows[-1], flush=True)
    heads = list(rows[0])
    table = [["", *(row["database"] for row in rows)], ["---"] * (len(rows) + 1)]
    table += [[head, *(row[head] for row in rows)] for head in heads if head != "database"]
    words = "\n".join(f"| {' | '.join(map(str, line))} |" for line in table)
    words += "\n\nAsked: none lost or doubled, memory and handles level, the disk within the quota, all restored."
    print(words)
    if given.record:
        record("years", "A node that deletes, is upgraded, backed up and restored under kills", words, {"rows": rows})


def lived(place: Path, urls: list[str], count: int, longest_s: float) -> dict[str, Any]:
    """What became of the studies, the disk and the backups. urls: of the node's database and two empty ones"""
    model, template = threshold_model(place / "model", 50), node_load.template_slices(place / "template")
    sections = node_load.node_sections(urls[0], workers=2)
    first, folder, began = max(8, count // 10), place / "node", time.monotonic()
    with hilum.serve(model, folder=folder, **sections) as node:
        database = record_database.open_database(node.settings.database_url)
        node_load.send_studies(node, template, place / "first", list(range(first)), threading.Event())
        _wait(lambda: _count(database, "done", "gone") == first, 300)
    one = _bytes_on_disk(folder) / first
    quota = one * count / KEPT_SHARE
    _downgrade(database)
    config = place / "node.toml"
    config.write_text(
        f"[retention]\nimages_days = {IMAGES_S / DAY_S!r}\nresults_days = {RESULTS_S / DAY_S!r}\n"
        f"quota_gb = {quota / 1e9!r}\n"
    )
    watch = Watched(folder, database)
    stop = threading.Event()
    with hilum.serve(model, config=config, folder=folder, **sections) as node:
        assert _count(database, "done", "gone") == first, "the upgrade has lost a study"
        sent = [
            threading.Thread(
                target=node_load.send_studies,
                args=(node, template, place / f"sender-{n}", list(range(first + n, count, 2)), stop),
            )
            for n in range(2)
        ]
        killing = threading.Thread(target=node_load.kill_processes, args=(node, KILLS_S, stop, watch.kills))
        for thread in (*sent, killing):
            thread.start()
        halfway, excesses = dict[str, Any](), list[float]()
        end = time.monotonic() + longest_s
        while time.monotonic() < end and watch.ended < count:
            watch.look(node)
            excesses.append(watch.excess(quota))
            if not halfway and watch.ended >= (count + first) // 2:
                halfway = _backed_up(folder, place / "halfway.tar")
            time.sleep(1)
        took = time.monotonic() - began
        stop.set()
        for thread in (*sent, killing):
            thread.join()
        with suppress(TimeoutError):
            _wait(lambda: _count(database, "done", "gone") == _count(database), 2 * SETTLE_S)
            _wait(lambda: watch.excess(quota) <= 0, SETTLE_S)
        watch.look(node)
    whole = _backed_up(folder, place / "whole.tar")
    restored = _restored(place, "whole", urls[1])
    row = {
        "database": "SQLite" if urls[0] == "sqlite" else "PostgreSQL",
        "studies": _count(database),
        "a minute": round(60 * watch.ended / took),
        "kills": ", ".join(f"{n} {role}" for role, n in sorted(watch.kills.items())) or "none",
        **_results(database),
        "copies before the upgrade": len(list((folder / "backups").iterdir())),
        "in an incident, of these whole": watch.harmed_whole(),
        "objects gone, results gone": ", ".join(str(_gone(database, name)) for name in NEW_COLUMNS),
        "quota (MB)": round(quota / 1e6, 2),
        "largest on disk, at the end (MB)": f"{max(watch.sizes) / 1e6:.2f}, {_bytes_on_disk(folder) / 1e6:.2f}",
        "seconds above the quota by a tenth, of all": f"{sum(one > quota / 10 for one in excesses)} of {len(excesses)}",
        "above it at the end (MB)": f"{max(0.0, watch.excess(quota)) / 1e6:.2f}",
        "keeper, MiB at a fifth and at the end": watch.levels("mib"),
        "keeper, handles at a fifth and at the end": watch.levels("handles"),
        "backup halfway": halfway.get("words", "none"),
        "restored from halfway": _restored(place, "halfway", urls[2])["words"] if halfway else "not measured",
        "backup at the end": whole["words"],
        "rows of the restored node": _same_rows(database, restored),
        "files of the restored node": _same_files(folder, restored["folder"]),
        "minutes": round((time.monotonic() - began) / 60, 1),
    }
    database.close()
    return row


class Watched:
    """What is seen of a node second by second. sizes: bytes of objects and results on the disk"""

    def __init__(self, folder: Path, database: Database) -> None:
        self.folder, self.database = folder, database
        self.kills, self.sizes, self.ended = Counter[str](), list[int](), 0
        self.keeper = list[dict[str, float]]()
        self.harmed = set[str]()

    def look(self, node: Any) -> None:
        """Measure once, and name every fiftieth study in an incident."""
        self.ended = _count(self.database, "done", "gone")
        self.sizes.append(_bytes_on_disk(self.folder))
        for child in node._children:
            if child.role == "keeper" and child.process is not None:
                with suppress(psutil.Error):
                    process = psutil.Process(child.process.pid)
                    figures = {"mib": process.memory_info().rss / 2**20, "handles": process.num_fds()}
                    if time.time() - process.create_time() > 5:  # one that was killed begins small
                        self.keeper.append(figures)
        wanted = {object_store.uid_key(node_load.study_uid(n)) for n in range(0, 10_000, HARMED)}
        values = {"kind": "other", "known_on": "2026-01-01", "account": "bench", "at": time.time()}
        values |= dict.fromkeys(("harm", "version", "cause", "action", "checked"), "")
        with self.database.write() as connection:
            here = select(tables.STUDIES.c.study).where(tables.STUDIES.c.state.not_in(("going", "gone")))
            for study in (wanted & set(connection.execute(here).scalars())) - self.harmed:
                connection.execute(insert(tables.INCIDENTS).values(study=study, **values))
                self.harmed.add(study)

    def excess(self, quota: float) -> float:
        """Bytes above the quota that may go."""
        both = tables.INSTANCES.join(tables.STUDIES, tables.INSTANCES.c.study == tables.STUDIES.c.study)
        may_go = tables.STUDIES.c.state == "done", tables.STUDIES.c.study.not_in(self.harmed)
        with self.database.read() as connection:
            query = select(func.coalesce(func.sum(tables.INSTANCES.c.bytes), 0)).select_from(both).where(*may_go)
            objects = float(connection.execute(query).scalar_one())
        return min(_bytes_on_disk(self.folder) - quota, objects)

    def harmed_whole(self) -> str:
        """How many studies stand in incidents, and how many of these have all their objects and results."""
        with self.database.read() as connection:
            mine = tables.STUDIES.c.study.in_(self.harmed)
            states = Counter(connection.execute(select(tables.STUDIES.c.state).where(mine)).scalars())
            objects = connection.execute(
                select(tables.INSTANCES.c.path).where(tables.INSTANCES.c.study.in_(self.harmed))
            )
            paths = [self.folder / path for path in objects.scalars()]
        is_whole = all(path.is_file() for path in paths) and len(paths) == node_load.SLICES * len(self.harmed)
        return f"{len(self.harmed)}, {states['done'] if is_whole else 'files are missing'}"

    def levels(self, name: str) -> str:
        """The median of a figure of the keeper early and late."""
        fifth = max(1, len(self.keeper) // 5)
        parts = (self.keeper[:fifth], self.keeper[-fifth:])
        return ", ".join(f"{sorted(one[name] for one in part)[len(part) // 2]:.0f}" for part in parts if part)


def _new_databases(server: str) -> list[str]:
    database, names = record_database.open_database(server), ("lived", "restored", "halfway")
    with database.engine.connect().execution_options(isolation_level="AUTOCOMMIT") as connection:
        for name in names:
            connection.execute(text(f"CREATE DATABASE {name}"))
    database.close()
    return [f"{server.rpartition('/')[0]}/{name}" for name in names]


def _downgrade(database: Database) -> None:
    """As the first revision left it."""
    with database.write() as connection:
        for name in NEW_COLUMNS:
            connection.execute(text(f"ALTER TABLE studies DROP COLUMN {name}"))
        connection.execute(text("UPDATE alembic_version SET version_num = '1'"))


def _count(database: Database, *states: str) -> int:
    with database.read() as connection:
        which = [tables.STUDIES.c.state.in_(states)] if states else []
        query = select(func.count()).select_from(tables.STUDIES).where(*which)
        return int(connection.execute(query).scalar_one())


def _gone(database: Database, name: str) -> int:
    with database.read() as connection:
        query = select(func.count()).select_from(tables.STUDIES).where(tables.STUDIES.c[name].is_not(None))
        return int(connection.execute(query).scalar_one())


def _wait(condition: Any, seconds: float) -> None:
    end = time.monotonic() + seconds
    while not condition():
        if time.monotonic() > end:
            raise TimeoutError
        time.sleep(1)


def _bytes_on_disk(folder: Path) -> int:
    total = 0
    for part in ("studies", "results"):
        for root, _, names in os.walk(folder / part):
            for name in names:
                with suppress(FileNotFoundError):
                    total += os.stat(os.path.join(root, name)).st_size  # noqa: PTH116, PTH118 - many thousand each second
    return total


def _results(database: Database) -> dict[str, Any]:
    with database.read() as connection:
        studies = connection.execute(select(tables.STUDIES.c.study)).scalars().all()
        jobs = connection.execute(select(tables.JOBS.c.study, tables.JOBS.c.outcome)).all()
        predictions = select(func.count()).select_from(tables.AUDIT).where(tables.AUDIT.c.action == "prediction")
        events = connection.execute(predictions).scalar_one()
    answered = Counter(row.study for row in jobs if row.outcome == "answered")
    doubled = sum(n > 1 for n in Counter(row.study for row in jobs).values())
    return {"lost": len(studies) - len(answered), "doubled": doubled, "events of predictions": events}


def _backed_up(folder: Path, out: Path) -> dict[str, Any]:
    began = time.monotonic()
    made = hilum.backup(folder, out=out)
    seconds = time.monotonic() - began
    words = f"{made.files} files in {seconds:.1f} s; absent {len(made.absent)}, changed {len(made.changed)}"
    return {"words": words, "made": made}


def _restored(place: Path, name: str, url: str) -> dict[str, Any]:
    """Restore in a process with a home folder of its own, which has no patient key."""
    folder, home = place / f"{name}-again", place / f"{name}-home"
    home.mkdir()
    environment = {key: value for key, value in os.environ.items() if key != "HILUM_PATIENT_KEY"}
    environment |= {"HOME": str(home), "XDG_CONFIG_HOME": str(home / "config")}
    command = [sys.executable, "-m", "hilum", "restore", str(place / f"{name}.tar"), "--folder", str(folder)]
    command += [] if url == "sqlite" else ["--database", url]
    done = subprocess.run(command, env=environment, capture_output=True, text=True, check=False)
    lines = done.stdout.strip().splitlines()
    notes_key = any("patient key here is not that of the backup" in line for line in lines)
    audit = lines[1].partition(";")[0] if len(lines) > 1 else done.stderr.strip()
    words = f"{audit}; other key {'said' if notes_key else 'not said'}"
    return {"folder": folder, "words": words}


def _same_rows(database: Database, restored: dict[str, Any]) -> str:
    own, unlike, rows = record_database.node_database(restored["folder"]), list[str](), 0
    for table in tables.metadata.sorted_tables:
        with database.read() as here, own.read() as there:
            both = [sorted(map(repr, one.execute(select(table)))) for one in (here, there)]
        rows += len(both[0])
        unlike += [] if both[0] == both[1] else [table.name]
    own.close()
    return f"{rows}, {'all equal' if not unlike else 'unlike in ' + ', '.join(unlike)}; {restored['words']}"


def _same_files(folder: Path, again: Path) -> str:
    names = {path.relative_to(folder) for part in ("studies", "results") for path in (folder / part).rglob("*.*")}
    equal = sum(
        (again / name).is_file() and (again / name).read_bytes() == (folder / name).read_bytes() for name in names
    )
    return f"{equal} of {len(names)} equal"


if __name__ == "__main__":
    main()
