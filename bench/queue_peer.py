"""Our queue and Procrastinate's on one PostgreSQL: the same jobs, the same workers, the same deaths.

    python bench/queue_peer.py --record

A job sleeps for --job seconds and then records its result. Every --every seconds, --faults times in all, a worker that
has begun to work is killed by SIGKILL, and another begins at once; each third time one is stopped for longer than its
heartbeat may be silent, and goes on, as on a machine that swaps. Both sides take a worker for dead after SILENT_S
without a heartbeat. Ours runs twice: with workers that keep their names, as a node's supervisor begins them, and by its
leases alone. Procrastinate runs twice: with the task that retries as its page has it, where it waits behind the jobs
that were there before, and with a higher priority. Whatever ends by itself is begun again too, and counted.

lost:    jobs without a result, long after the last one was due
doubled: jobs whose result was recorded more than once
again:   seconds from a death until what the dead worker held is begun again
"""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
from beside import ROOT, arguments, peer, record, versions
from sqlalchemy import create_engine, text

from isocenter.service.records import migration
from isocenter.service.records.job_queue import Jobs
from isocenter.service.records.study_index import Arrival, StudyIndex

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from service.conftest import postgresql_server

SIDES = ROOT / "bench" / "sides"
# Without a heartbeat a worker counts as dead; for so long one is stopped (s).
SILENT_S, STOPPED_S = 12.0, 16.0
STUDY = "a" * 32
OURS, LEASES = "Isocenter", "Isocenter, by leases alone"
PLAIN, FIRST = "Procrastinate", "Procrastinate, its retries first"


@dataclass
class Crew:
    """Workers of one side, and what is done to them.

    log:     each line says which job was begun by which process, and when
    stopped: {place: when it goes on}
    deaths:  (when, process) of those that were killed
    """

    command: Sequence[str]
    count: int
    log: Path
    keeps_names: bool
    draw: random.Random = field(default_factory=lambda: random.Random(0))  # noqa: S311 - who dies is no secret
    running: list[subprocess.Popen[bytes]] = field(default_factory=list)
    stopped: dict[int, float] = field(default_factory=dict)
    stops: int = 0
    ended: int = 0
    deaths: list[tuple[float, int]] = field(default_factory=list)

    def __enter__(self) -> Crew:
        self.running = [self._begun(place) for place in range(self.count)]
        return self

    def _begun(self, place: int) -> subprocess.Popen[bytes]:
        name = f"worker-{place}" if self.keeps_names else f"worker-{place}-{len(self.deaths)}"
        with self.log.with_suffix(".err").open("a") as errors:
            return subprocess.Popen([*self.command, name, str(self.log)], stdout=errors, stderr=errors)

    def fault(self) -> None:
        """Kill a worker and begin another, or stop one for a while; of those that have come up."""
        working = {int(line.split()[1]) for line in self.log.read_text().splitlines()}
        places = [n for n, one in enumerate(self.running) if n not in self.stopped and one.pid in working]
        if not places:
            return
        place = self.draw.choice(places)
        process = self.running[place]
        if self.faults % 3 == 2:
            process.send_signal(signal.SIGSTOP)
            self.stopped[place], self.stops = time.time() + STOPPED_S, self.stops + 1
        else:
            process.kill()
            process.wait()
            self.deaths.append((time.time(), process.pid))
            self.running[place] = self._begun(place)

    @property
    def faults(self) -> int:
        """How many there were."""
        return len(self.deaths) + self.stops

    def go_on(self) -> None:
        """Those whose time is up, and in place of those that have ended by themselves others."""
        for place, process in enumerate(self.running):
            if process.poll() is not None:
                self.ended += 1
                self.stopped.pop(place, None)
                self.running[place] = self._begun(place)
        for place, until in list(self.stopped.items()):
            if time.time() >= until:
                self.running[place].send_signal(signal.SIGCONT)
                del self.stopped[place]

    def __exit__(self, *error: object) -> None:
        for process in self.running:
            process.kill()
            process.wait()

    def waits(self) -> list[float]:
        """Seconds from each death until the job that was held then was begun again."""
        begun = [(job, int(pid), float(at)) for job, pid, at in map(str.split, self.log.read_text().splitlines())]
        found = []
        for died, process in self.deaths:
            held = next((job for job, pid, _ in reversed(begun) if pid == process), None)
            found += [at - died for job, _, at in begun if job == held and at > died][:1]
        return found


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--jobs", type=int, default=500)
    parser.add_argument("--job", type=float, default=0.4, help="seconds of one job")
    parser.add_argument("--workers", type=int, default=4)
    parser.add_argument("--faults", type=int, default=12)
    parser.add_argument("--every", type=float, default=3.0, help="s between two faults")
    given = parser.parse_args()
    given.jobs = 40 if given.small else given.jobs
    python = str(peer("procrastinate"))
    rows = []
    for side in (OURS, LEASES, PLAIN, FIRST):
        with postgresql_server() as server, tempfile.TemporaryDirectory() as folder:
            rows.append(worked(side, python, server.url, Path(folder) / "begun", given))
        print(rows[-1], flush=True)
    lines = [[*rows[0]], ["---"] * len(rows[0]), *(list(row.values()) for row in rows)]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    version = versions("procrastinate")["procrastinate"]
    about = (
        f"{given.jobs} jobs of {given.job:g} s, {given.workers} workers. {given.faults} faults, {given.every:g} s "
        f"apart: two of three are `kill -9` of a worker, the third stops it for {STOPPED_S:g} s. A worker counts as "
        f"dead after {SILENT_S:g} s without a heartbeat. Procrastinate {version}. Begun again: median (largest)."
    )
    about += f"\n\n{table}"
    print(about)
    if given.record:
        record("queue_peer", "The queue beside Procrastinate", about, {"rows": rows, "version": version})


def worked(side: str, python: str, url: str, log: Path, given: Any) -> dict[str, Any]:
    """What became of one side's jobs."""
    log.touch()
    timing = [url, str(SILENT_S), str(given.job)]
    if side in (OURS, LEASES):
        command = [sys.executable, str(SIDES / "queue_ours.py"), *timing]
        _add(url, given.jobs)
    else:
        command = [python, str(SIDES / "queue_procrastinate.py"), *timing, "1" if side == FIRST else "0"]
        subprocess.run([*command, "--add", str(given.jobs)], check=True)
    with Crew(command, given.workers, log, keeps_names=side == OURS) as crew:
        while not log.read_text():
            time.sleep(0.1)
        began = time.time()
        due, latest = began + given.every, began + 60 + 4 * given.jobs * given.job
        while (now := time.time()) < latest and len(_results(url, side)) < given.jobs:
            crew.go_on()
            if now >= due and crew.faults < given.faults:
                crew.fault()
                due = now + given.every
            time.sleep(0.1)
        took = time.time() - began
        while crew.stopped:  # whoever was stopped writes what it has
            crew.go_on()
            time.sleep(0.1)
        time.sleep(2 * given.job)
    results, waits = _results(url, side), crew.waits()
    return {
        "queue": side,
        "lost": given.jobs - len(results),
        "doubled": sum(number > 1 for number in results.values()),
        "jobs a minute": round(60 * len(results) / took),
        "killed": len(crew.deaths),
        "stopped": crew.stops,
        "ended by themselves": crew.ended,
        "held by the killed": len(waits),
        "s until begun again": f"{np.median(waits):.1f} ({max(waits):.1f})" if waits else "none",
    }


def _add(url: str, count: int) -> None:
    database = migration.migrate_database(url)
    StudyIndex(database).add([Arrival(STUDY, "s", "i", "1", "2", "3", "4", "5", "p", 1, "0", "peer", "store")])
    columns = {"model": "m", "model_hash": "h", "inputs": {"series": {}, "hash": ""}, "revision": 1, "priority": 2}
    with database.write() as connection:
        for number in range(count):
            Jobs(database).add(connection, study=STUDY, inputs_hash="i", rule=str(number), **columns)
    database.close()


def _results(url: str, side: str) -> Counter[str]:
    """How often the result of each job was recorded."""
    asked = "SELECT object FROM audit WHERE action = 'prediction'"
    if side in (PLAIN, FIRST):
        asked = "SELECT number FROM results"
    engine = create_engine(url.replace("postgresql:", "postgresql+psycopg:"))
    with engine.connect() as connection:
        found = Counter(connection.execute(text(asked)).scalars())
    engine.dispose()
    return found


if __name__ == "__main__":
    main()
