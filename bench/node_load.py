"""A node under load: many small studies, four workers, each process killed now and then; none lost, none doubled.

    python bench/node_load.py --studies 10000 --record
    python bench/node_load.py --folder load --minutes 10 --record   # again and again, until all are done

A study is three slices of 16 x 16 voxels, sent by DCMTK's storescu over four associations at once; the model
thresholds, so that what is measured is the node. On SQLite, and on a PostgreSQL of its own that is started for it.
Every --kills seconds one process of the node is ended by SIGKILL. The largest resident memory of each kind of process
is read twice: once a tenth of the studies is done, and at the end; of several parts, those of the last.
"""

from __future__ import annotations

import json
import os
import random
import signal
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from contextlib import ExitStack
from pathlib import Path
from typing import Any

import numpy as np
import psutil
from beside import arguments, record
from pydicom import dcmread
from sqlalchemy import func, select

import hilum
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.records import record_database, tables
from hilum.values import Geometry, Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from service.conftest import postgresql_server
from service.thresholds import threshold_model

SIDE, SLICES, AT_ONCE, SENDERS, ASKED = 16, 3, 50, 4, 400


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--studies", type=int, default=10000)
    parser.add_argument("--kills", type=float, default=20.0, help="s between two kills; 0 for none")
    parser.add_argument("--databases", nargs="+", default=["postgresql", "sqlite"])
    parser.add_argument("--folder", type=Path, help="where nodes stay, so that a later call goes on with what is left")
    parser.add_argument("--minutes", type=float, default=1e9, help="of one call and database")
    given = parser.parse_args()
    count = 40 if given.small else given.studies
    rows = []
    for kind in given.databases:
        with ExitStack() as stack:
            place = given.folder or Path(stack.enter_context(tempfile.TemporaryDirectory()))
            kept = place.absolute() / "server" if given.folder else None
            url = "sqlite" if kind == "sqlite" else stack.enter_context(postgresql_server(kept)).url
            rows.append(loaded(place.absolute() / kind, url, count, given.kills, 60 * given.minutes))
        print(rows[-1], flush=True)
    if any(row["done"] < count for row in rows):
        sys.exit("not all is done: call it again with the same --folder")
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *(list(row.values()) for row in rows)]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    text += f"\n\nAsked: none lost, none doubled, memory flat, at least {ASKED} studies a minute on PostgreSQL."
    print(text)
    if given.record:
        record("node_load", f"A node and {count} studies, its processes killed now and then", text, {"rows": rows})


def loaded(folder: Path, url: str, count: int, kills: float, longest_s: float) -> dict[str, Any]:
    """What became of the studies, and how fast; with what an earlier call has left in the folder."""
    folder.mkdir(parents=True, exist_ok=True)
    parts, whole_row = folder / "parts.json", folder / "row.json"
    if whole_row.exists():
        return dict(json.loads(whole_row.read_text()))
    earlier = json.loads(parts.read_text()) if parts.exists() else []
    model = threshold_model(folder / "model", 50)
    template = template_slices(folder / "template")
    sections = node_sections(url, workers=4)
    stop, killed = threading.Event(), sum((Counter[str](one["kills"]) for one in earlier), Counter[str]())
    with hilum.serve(model, folder=folder / "node", **sections) as node:
        database, began = record_database.open_database(node.settings.database_url), time.monotonic()
        with database.read() as connection:
            whole = set(
                connection.execute(select(tables.STUDIES.c.uid).where(tables.STUDIES.c.instances == SLICES)).scalars()
            )
        left = [number for number in range(count) if study_uid(number) not in whole]
        threads = [
            threading.Thread(target=send_studies, args=(node, template, folder / f"sender-{n}", left[n::SENDERS], stop))
            for n in range(SENDERS)
        ]
        threads.append(threading.Thread(target=kill_processes, args=(node, kills, stop, killed)))
        for thread in threads:
            thread.start()
        early: dict[str, float] = {}
        done = 0
        while done < count and time.monotonic() - began < min(60 + count, longest_s):
            time.sleep(1)
            with database.read() as connection:
                done = connection.execute(select(func.count()).where(tables.STUDIES.c.state == "done")).scalar_one()
            early = early or (memory_of_roles(node) if done >= count - len(left) * 0.9 else {})
            print(f"{done} of {count} after {time.monotonic() - began:.0f} s", end="\r", file=sys.stderr)
        late = memory_of_roles(node)
        stop.set()
        for thread in threads:
            thread.join()
        seconds = time.monotonic() - began  # the node works on while the last portions come in
        with database.read() as connection:
            results = Counter(connection.execute(select(tables.JOBS.c.study)).scalars())
            outcomes = Counter(connection.execute(select(tables.JOBS.c.outcome)).scalars())
        database.close()
    took = [*(one["seconds"] for one in earlier), seconds]
    parts.write_text(json.dumps([{"seconds": sum(took), "kills": dict(killed)}]))
    row = {
        "database": url.partition(":")[0],
        "studies": count,
        "done": done,
        "lost": count - len(results),
        "doubled": sum(n > 1 for n in results.values()),
        "results": outcomes["answered"],
        "a minute": round(60 * done / sum(took)),
        "kills": ", ".join(f"{n} {role}" for role, n in sorted(killed.items())) or "none",
        "MiB at a tenth, at the end": "; ".join(f"{role} {early.get(role, 0):.0f}, {late[role]:.0f}" for role in late),
        "minutes": round(sum(took) / 60, 1),
    }
    if done == count:
        whole_row.write_text(json.dumps(row))
    return row


def node_sections(url: str, workers: int) -> dict[str, dict[str, Any]]:
    """Settings of a node on free ports, which takes a study as complete after a second."""
    queue, database = {"workers": workers, "lease_s": 10}, {"url": url}
    ports: dict[str, dict[str, Any]] = {"dicom": {"port": 0}, "http": {"port": 0}}
    return ports | {"study": {"complete_after_s": 1}, "node": {"min_free_gb": 0}, "queue": queue, "database": database}


def study_uid(number: int) -> str:
    """The UID of a study by its number."""
    return f"2.25.1{number:06}"


def template_slices(folder: Path) -> list[Path]:
    """Three slices with a bright block, as files."""
    data = np.zeros((1, SIDE, SIDE, SLICES), np.int16)
    data[0, 3:9, 4:10, 1] = 100
    image = Image(data, Geometry((SIDE, SIDE, SLICES), np.diag([-1.0, -1, 2, 1])), modality="MR")
    if not folder.exists():
        series_writing.write_series(image, SeriesNames("p", "study", "series"), folder)
    return sorted(folder.iterdir())


def send_studies(node: Any, template: list[Path], folder: Path, numbers: list[int], stop: threading.Event) -> None:
    """Studies in portions, each portion again until the node has taken all of it, or time is up."""
    slices = [dcmread(path) for path in template]
    folder.mkdir(exist_ok=True)
    for start in range(0, len(numbers), AT_ONCE):
        if stop.is_set():
            return
        paths = []
        for number in numbers[start : start + AT_ONCE]:
            for place, one in enumerate(slices):
                one.StudyInstanceUID, one.SeriesInstanceUID = study_uid(number), f"2.25.2{number:06}"
                one.SOPInstanceUID = one.file_meta.MediaStorageSOPInstanceUID = f"2.25.3{number:06}{place}"
                one.PatientID = f"p{number}"
                paths.append(folder / f"{number}-{place}.dcm")
                one.save_as(paths[-1])
        command = ["storescu", "-aec", "HILUM", "127.0.0.1", str(node.settings.dicom.port), *map(str, paths)]
        while subprocess.run(command, capture_output=True, check=False).returncode != 0 and not stop.is_set():
            time.sleep(0.5)
        for path in paths:
            path.unlink()


def kill_processes(node: Any, every: float, stop: threading.Event, killed: Counter[str]) -> None:
    """`kill -9` of one process of the node after the other. killed: counts them by role"""
    rng = random.Random(0)  # noqa: S311 - which process dies is no secret
    while every and not stop.wait(every):
        child = rng.choice(node._children)
        if child.process is not None and child.process.poll() is None:
            os.kill(child.process.pid, signal.SIGKILL)
            killed[child.role] += 1


def memory_of_roles(node: Any) -> dict[str, float]:
    """{role: MiB} of the largest process of each role."""
    found = defaultdict[str, float](float)
    for child in node._children:
        if child.process is not None and child.process.poll() is None:
            size = psutil.Process(child.process.pid).memory_info().rss / 2**20
            found[child.role] = max(found[child.role], size)
    return dict(found)


if __name__ == "__main__":
    main()
