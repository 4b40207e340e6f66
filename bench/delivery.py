"""Orders, notices and messages while processes of the node are killed, and receivers fail half of the time.

    python bench/delivery.py --record

Workitems order one job each on studies of three slices of 16 x 16 voxels; the model thresholds. Every tenth study is
one value everywhere, so that the model abstains; every twentieth order is taken back while the node works. At random
one process of the node is ended by SIGKILL: mostly a worker or the web process, sometimes the keeper or the receiver.
Each result is urgent: its notice goes to a webhook, and its message ORU^R01 to a receiver of MLLP. Both fail half of
the time: before they note it, after they have noted it, or by an answer that says no. A trigger in the database counts
how often each workitem ends.
"""

from __future__ import annotations

import json
import os
import random
import signal
import socket
import subprocess
import sys
import tempfile
import threading
import time
from collections import Counter, defaultdict
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from typing import Any

import httpx
import numpy as np
from beside import arguments, record
from pydicom import Dataset
from sqlalchemy import select, text

import isocenter
from isocenter.files.dicom.writing import series_writing
from isocenter.files.dicom.writing.series_writing import SeriesNames
from isocenter.service.records import record_database, tables
from isocenter.values import Geometry, Image

sys.path.insert(0, str(Path(__file__).resolve().parent.parent / "tests"))
from ports import free_port
from service.thresholds import threshold_model

SIDE, SLICES = 16, 3
ABSTAINED, TAKEN_BACK = 10, 20  # every such study, and every such order
FINAL = ("COMPLETED", "CANCELED")
WEIGHTS = {"worker": 4, "web": 4, "keeper": 1, "receiver": 1}
# Once the last workitem has ended, receivers may still be waited for: a pause is at most 300 s.
LONGEST_S = 3600
# Between two requests that failed, two orders, and two looks (s).
AGAIN_S, ORDER_S, LOOK_S = 0.3, 0.5, 1.0
SETTINGS = """
dicom = {{ port = 0 }}
http = {{ port = {port} }}
study = {{ complete_after_s = 1 }}
node = {{ min_free_gb = 0 }}
queue = {{ workers = 2, lease_s = 5 }}
models.threshold.path = "{model}"
rules = [{{ name = "ordered", model = "threshold", only_ordered = true }}]
urgent = [{{ finding = "bright", value = 0.001, priority = "emergency" }}]
notify = [{{ when = "emergency", by = "webhook", to = "{hook}" }}]
hl7 = {{ send = ["{receiver}"] }}
"""
COUNTING = (
    "CREATE TABLE ended (workitem TEXT, state TEXT)",
    "CREATE TRIGGER counted AFTER UPDATE OF state ON workitems WHEN NEW.state IN ('COMPLETED', 'CANCELED') "
    "AND OLD.state <> NEW.state BEGIN INSERT INTO ended VALUES (NEW.workitem, NEW.state); END",
)


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--workitems", type=int, default=200)
    parser.add_argument("--kills", type=float, default=5.0, help="mean s between two kills")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        row = delivered(Path(folder), 20 if given.small else given.workitems, given.kills)
    lines = [["", "number"], ["---", "---"], *row.items()]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    print(table)
    if given.record:
        words = "Asked: each workitem ends once; every notice and message arrives, each time under the same id."
        record("delivery", "Orders, notices and messages under faults", f"{table}\n\n{words}", {"row": row})


def delivered(folder: Path, count: int, kills: float) -> dict[str, Any]:
    """What became of the workitems, notices and messages."""
    images = _images(folder / "images", count)
    stop, killed, refused = threading.Event(), Counter[str](), Counter[str]()
    with _webhook(refused) as (hook, posted), _mllp(refused) as (receiver, messages):
        model, config = threshold_model(folder / "model", 50), folder / "node.toml"
        config.write_text(SETTINGS.format(port=free_port(), model=model, hook=hook, receiver=receiver), "utf-8")
        with isocenter.serve(config=config) as node:
            database, began = record_database.open_database(node.settings.database_url), time.monotonic()
            with database.write() as connection:
                for statement in COUNTING:
                    connection.execute(text(statement))
            work = [
                threading.Thread(target=_send, args=(node, images, stop)),
                threading.Thread(target=_order, args=(node, images, stop)),
                threading.Thread(target=_take_back, args=(node, images, stop)),
            ]
            killer = threading.Thread(target=_kill, args=(node, kills, stop, killed))
            for thread in (*work, killer):
                thread.start()

            def ended() -> int:
                with database.read() as connection:
                    rows = connection.execute(select(tables.workitems.c.state)).scalars()
                    return sum(state in FINAL for state in rows)

            def waiting() -> int:
                with database.read() as connection:
                    rows = connection.execute(select(tables.deliveries.c.state)).scalars()
                    return sum(state == "waiting" for state in rows)

            seconds = _until(lambda: ended() >= count and not any(map(threading.Thread.is_alive, work)), began, "ended")
            all_sent = _until(lambda: not waiting(), began, "delivered")
            stop.set()
            for thread in (*work, killer):
                thread.join()
            shown = Counter(one["00741000"]["Value"][0] for one in _shown(node, count))
            with database.read() as connection:
                often = Counter(row.workitem for row in connection.execute(text("SELECT * FROM ended")))
                states = Counter(connection.execute(select(tables.workitems.c.state)).scalars())
                made = connection.execute(select(tables.jobs)).all()
                wanted = set(connection.execute(select(tables.notices.c.notice)).scalars())
                unsent = Counter(
                    row.state
                    for row in connection.execute(select(tables.deliveries).where(tables.deliveries.c.state != "sent"))
                )
            database.close()
    assert shown == states, (shown, states)
    told = {one.job[:20] for one in made if one.outcome in ("result", "nothing")}
    return {
        "workitems": count,
        "COMPLETED": states["COMPLETED"],
        "CANCELED": states["CANCELED"],
        "ended never": count - len(often),
        "ended more than once": sum(n > 1 for n in often.values()),
        "studies with two jobs": sum(n > 1 for n in Counter(one.study for one in made).values()),
        "jobs set aside, because their worker was killed three times": sum(one.state == "aside" for one in made),
        "processes killed": ", ".join(f"{n} {role}" for role, n in sorted(killed.items())),
        "notices": len(wanted),
        "notices that did not arrive, and of no job": f"{len(wanted - posted.keys())}, {len(posted.keys() - wanted)}",
        "notices repeated; with other content": _repeated(posted),
        "messages": len(told),
        "messages that did not arrive, and of no job": f"{len(told - messages.keys())}, {len(messages.keys() - told)}",
        "messages repeated; with other content": _repeated(messages),
        "tries that failed": ", ".join(f"{n} {how}" for how, n in sorted(refused.items())),
        "deliveries not sent": ", ".join(f"{n} {state}" for state, n in sorted(unsent.items())) or "none",
        "s until all workitems ended, and all was delivered": f"{seconds:.0f}, {all_sent:.0f}",
    }


def _repeated(got: dict[str, list[bytes]]) -> str:
    several = [bodies for bodies in got.values() if len(bodies) > 1]
    return f"{len(several)}; {sum(len(set(bodies)) > 1 for bodies in several)}"


def _until(condition: Any, began: float, what: str) -> float:
    while not condition():
        if time.monotonic() - began > LONGEST_S:
            print(f"not all {what} after {LONGEST_S} s", file=sys.stderr)
            break
        time.sleep(LOOK_S)
    return time.monotonic() - began


def _images(folder: Path, count: int) -> list[tuple[str, Path]]:
    """(StudyInstanceUID, folder) of the studies."""
    found = []
    folder.mkdir()
    for number in range(count):
        data = np.zeros((1, SIDE, SIDE, SLICES), np.int16)
        if number % ABSTAINED:
            data[0, 3:9, 4:10, 1] = 100
        names = SeriesNames(f"p{number}", "study", "series")
        image = Image(data, Geometry((SIDE, SIDE, SLICES), np.diag([-1.0, -1, 2, 1])), modality="MR")
        series_writing.write_series(image, names, folder / str(number))
        found.append((names.study_uid, folder / str(number)))
    return found


def _send(node: Any, images: list[tuple[str, Path]], stop: threading.Event) -> None:
    """Every study, again until the node has taken it."""
    for _, folder in images:
        paths = map(str, sorted(folder.iterdir()))
        command = ["storescu", "-aec", "ISOCENTER", "127.0.0.1", str(node.settings.dicom.port), *paths]
        while not stop.is_set() and subprocess.run(command, capture_output=True, check=False).returncode != 0:
            time.sleep(AGAIN_S)


def _order(node: Any, images: list[tuple[str, Path]], stop: threading.Event) -> None:
    """A workitem for each study, in another order; again until the node has it, under the same UID."""
    code, item = Dataset(), Dataset()
    code.CodeValue, code.CodingSchemeDesignator, code.CodeMeaning = "1", "99BENCH", "ordered"
    item.TypeOfInstances = "DICOM"
    order = Dataset()
    order.ProcedureStepState, order.ScheduledProcedureStepPriority = "SCHEDULED", "MEDIUM"
    order.ProcedureStepLabel, order.InputReadinessState = "ordered", "READY"
    order.ScheduledProcedureStepStartDateTime = "20200101000000"
    order.ScheduledWorkitemCodeSequence, order.InputInformationSequence = [code], [item]
    for number in random.Random(1).sample(range(len(images)), len(images)):  # noqa: S311 - no secret
        item.StudyInstanceUID = images[number][0]
        # 409: the node had it, and was killed before it said so.
        _asked(node, "POST", f"?workitem={_uid(number)}", [order.to_json_dict()], (201, 409), stop)
        stop.wait(ORDER_S)


def _take_back(node: Any, images: list[tuple[str, Path]], stop: threading.Event) -> None:
    """Cancel some workitems while the node works; what has ended by then stays as it is (409)."""
    for number in range(1, len(images), TAKEN_BACK):
        _asked(node, "POST", f"/{_uid(number)}/cancelrequest", None, (202, 409), stop)


def _shown(node: Any, count: int) -> list[dict[str, Any]]:
    """All workitems as the node gives them."""
    answer = _asked(node, "GET", f"?limit={count}", None, (200,), threading.Event())
    assert answer is not None
    return list(answer.json())


def _asked(
    node: Any, method: str, path: str, body: Any, wanted: tuple[int, ...], stop: threading.Event
) -> httpx.Response | None:
    """The answer of the web process, asked again until there is one that is wanted."""
    url = f"http://127.0.0.1:{node.settings.http.port}/dicomweb/workitems{path}"
    while not stop.is_set():
        try:
            answer = httpx.request(method, url, json=body, timeout=30)
            if answer.status_code in wanted:
                return answer
        except httpx.HTTPError:
            pass
        time.sleep(AGAIN_S)
    return None


def _uid(number: int) -> str:
    return f"2.25.9{number:06}"


def _kill(node: Any, every: float, stop: threading.Event, killed: Counter[str]) -> None:
    draw = random.Random(0)  # noqa: S311 - which process dies is no secret
    while not stop.wait(draw.uniform(0.5, 2 * every - 0.5)):
        [role] = draw.choices(list(WEIGHTS), list(WEIGHTS.values()))
        child = draw.choice([one for one in node._children if one.role == role])
        if child.process is not None and child.process.poll() is None:
            os.kill(child.process.pid, signal.SIGKILL)
            killed[role] += 1


@contextmanager
def _webhook(refused: Counter[str]) -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """A webhook that fails half of the time: (its address, what came under each id)."""
    draw, posted = random.Random(2), defaultdict[str, list[bytes]](list)  # noqa: S311 - no secret

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            body = self.rfile.read(int(self.headers["Content-Length"]))
            how = draw.choice(["503", "before", "after", "", "", ""])
            if how in ("", "after"):
                assert json.loads(body)["notice"] == self.headers["Idempotency-Key"]
                posted[self.headers["Idempotency-Key"]].append(body)
            if how:
                refused[f"notices ({how})"] += 1
            if how in ("before", "after"):  # nobody hears of it
                self.close_connection = True
                return
            self.send_response(503 if how else 204)
            self.send_header("Content-Length", "0")
            self.end_headers()

        def log_message(self, *words: object) -> None:
            """Say nothing."""

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    try:
        yield f"http://127.0.0.1:{server.server_port}/", posted
    finally:
        server.shutdown()
        server.server_close()


@contextmanager
def _mllp(refused: Counter[str]) -> Iterator[tuple[str, dict[str, list[bytes]]]]:
    """A receiver of HL7 that fails half of the time: (host:port, what came under each MSH-10)."""
    draw, taken, stop = random.Random(3), defaultdict[str, list[bytes]](list), threading.Event()  # noqa: S311
    server = socket.create_server(("127.0.0.1", 0))
    server.settimeout(0.2)

    def serve() -> None:
        while not stop.is_set():
            try:
                connection, _ = server.accept()
            except TimeoutError:
                continue
            connection.settimeout(10)
            with connection:
                data = b""
                while b"\x1c\r" not in data and (piece := connection.recv(1 << 16)):
                    data += piece
                if b"\x1c\r" not in data:  # its sender was killed
                    continue
                message = data.strip(b"\x0b\x1c\r")
                control = message.split(b"\r")[0].split(b"|")[9].decode()
                how = draw.choice(["AR", "before", "after", "", "", ""])
                if how in ("", "after"):
                    taken[control].append(message)
                if how:
                    refused[f"messages ({how})"] += 1
                if how not in ("before", "after"):
                    answer = f"MSH|^~\\&|||||20260101||ACK|1|P|2.5.1\rMSA|{how or 'AA'}|{control}\r"
                    connection.sendall(b"\x0b" + answer.encode() + b"\x1c\r")

    thread = threading.Thread(target=serve, daemon=True)
    thread.start()
    try:
        yield f"127.0.0.1:{server.getsockname()[1]}", taken
    finally:
        stop.set()
        thread.join()
        server.close()


if __name__ == "__main__":
    main()
