"""How fast CT slices come in: our receiver, DCMTK's storescp and pynetdicom, one after the other in each round.

    python bench/ingest.py --record
    python bench/ingest.py --slices 200 --rounds 3 --place /dev/shm

DCMTK's storescu sends 1,000 slices of 512 kB over loopback, on one association and on eight, with TCP_NODELAY=1 on both
sides; without that, as DCMTK comes, a tenth of them. A receiver is one process, or two; storescp with --fork has one
for each association. What was received is compared with what was sent, byte for byte.
"""

from __future__ import annotations

import argparse
import hashlib
import itertools
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import psutil
import pydicom
from recorded import record

from hilum.service.dicom.dicom_listening import ListenerSettings
from hilum.service.dicom.receiver import Receiver

OURS, TWO, STORESCP, FORKING, PYNETDICOM = (
    "hilum",
    "hilum, two processes",
    "storescp +B",
    "storescp +B --fork",
    "pynetdicom",
)
# storescp waits for no disk: what it kept is synced once the senders have ended, within the time that is measured.
AFTERWARDS = "afterwards"
SIDE = 512
# (receiver, setting, associations, whether Nagle's algorithm is off)
TRIALS = (
    *((OURS, sync, many, True) for many in (1, 8) for sync in ("commit", "association", "object")),
    *((STORESCP, setting, many, True) for many in (1, 8) for setting in ("", AFTERWARDS)),
    (TWO, "commit", 8, True),
    (FORKING, "", 8, True),
    *((PYNETDICOM, "", many, True) for many in (1, 8)),
    (OURS, "association", 1, False),
    (STORESCP, "", 1, False),
)


@dataclass(frozen=True)
class Taken:
    """One run: objects a second, until storescu has ended, and ms of the receiver's processor an object."""

    receiver: str
    setting: str
    associations: int
    at_once: bool
    per_second: float
    cpu_ms: float


def slices(folder: Path, count: int) -> list[Path]:
    """The paths of CT slices."""
    noise = np.random.default_rng(0)
    folder.mkdir()
    paths = [folder / f"{number:04}.dcm" for number in range(count)]
    for number, path in enumerate(paths):
        dataset = pydicom.Dataset()
        dataset.file_meta = pydicom.dataset.FileMetaDataset()
        dataset.file_meta.TransferSyntaxUID = pydicom.uid.ExplicitVRLittleEndian
        dataset.SOPClassUID = dataset.file_meta.MediaStorageSOPClassUID = pydicom.uid.CTImageStorage
        dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = f"1.2.3.1.{number}"
        dataset.StudyInstanceUID, dataset.SeriesInstanceUID = "1.2.3", "1.2.3.1"
        dataset.Modality, dataset.InstanceNumber = "CT", number
        dataset.Rows = dataset.Columns = SIDE
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "MONOCHROME2"
        dataset.BitsAllocated = dataset.BitsStored = 16
        dataset.HighBit, dataset.PixelRepresentation = 15, 0
        dataset.PixelData = noise.integers(0, 4096, (SIDE, SIDE), dtype=np.uint16).tobytes()
        dataset.save_as(path, enforce_file_format=True)
    return paths


def receive(kind: str, setting: str, folder: Path, port: int) -> None:
    """The receiver, in this process, until SIGTERM."""
    stop = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: stop.set())
    if kind in (OURS, TWO):
        Receiver(ListenerSettings(port=port, min_free_gb=0, sync=setting), folder, "receiver").serve(stop)
        return
    import pynetdicom
    from pynetdicom import _config, evt

    _config.STORE_RECV_CHUNKED_DATASET = True
    tempfile.tempdir = str(folder)

    def keep(event: evt.Event) -> int:
        shutil.copyfile(event.dataset_path, folder / f"{event.request.AffectedSOPInstanceUID}.dcm")
        return 0

    entity = pynetdicom.AE("HILUM")
    entity.supported_contexts = pynetdicom.StoragePresentationContexts
    entity.maximum_pdu_size = 131072
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=[(evt.EVT_C_STORE, keep)])
    stop.wait()
    server.shutdown()


@contextmanager
def receiving(trial: Sequence, folder: Path, environment: dict[str, str]) -> Iterator[tuple[list[psutil.Process], int]]:
    """Processes that listen on a port."""
    kind, setting, _, at_once = trial
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port = probe.getsockname()[1]
    if kind in (STORESCP, FORKING):
        options = [*["--max-pdu", "131072"] * at_once, *["--fork"] * (kind == FORKING)]
        command = ["storescp", "+B", *options, "-od", str(folder), str(port)]
    else:
        command = [sys.executable, __file__, "--receive", kind, setting, str(folder), str(port)]
    with ExitStack() as stack:
        started = [
            stack.enter_context(subprocess.Popen(command, env=environment, stderr=subprocess.DEVNULL))
            for _ in range(2 if kind == TWO else 1)
        ]
        for process in started:
            stack.callback(process.terminate)
        processes = [psutil.Process(process.pid) for process in started]
        while not all(any(one.status == "LISTEN" for one in process.net_connections()) for process in processes):
            time.sleep(0.1)
        time.sleep(0.2)
        yield processes, port


def taken(trial: Sequence, sent: Sequence[Path], place: Path) -> Taken:
    """One run, with what came in compared."""
    kind, setting, many, at_once = trial
    folder = Path(tempfile.mkdtemp(dir=place))
    environment = {**os.environ, **({"TCP_NODELAY": "1"} if at_once else {})}
    os.sync()
    with receiving(trial, folder, environment) as (processes, port):
        before, began = sum(map(_busy, processes)), time.perf_counter()
        options = ["-R", *(["--max-pdu", "131072"] if at_once else []), "127.0.0.1", str(port)]
        lines = [["storescu", *options, *map(str, sent[first::many])] for first in range(many)]
        senders = [subprocess.Popen(line, env=environment) for line in lines]
        if any(sender.wait() for sender in senders):
            raise SystemExit(f"{kind} refused what storescu sent")
        if setting == AFTERWARDS:
            subprocess.run(["sync", "--file-system", folder], check=True)
        seconds, busy = time.perf_counter() - began, sum(map(_busy, processes)) - before
    came = {_data_set(path) for path in folder.rglob("*") if path.is_file() and path.stat().st_size > 2 * SIDE**2}
    if came != {_data_set(path) for path in sent}:
        raise SystemExit(f"{kind} holds other data than was sent")
    shutil.rmtree(folder)
    return Taken(kind, setting, many, at_once, len(sent) / seconds, 1e3 * busy / len(sent))


def _busy(process: psutil.Process) -> float:
    return sum(process.cpu_times()[:4]) + sum(sum(one.cpu_times()[:2]) for one in process.children())


def _data_set(path: Path) -> bytes:
    """The hash of what stands behind group 2."""
    raw = path.read_bytes()
    return hashlib.sha256(raw[144 + int.from_bytes(raw[140:144], "little") :]).digest()


def table(runs: Sequence[Taken]) -> str:
    """A line for each trial: median and range over rounds."""
    lines = ["| receiver | fsync | associations | objects a second | receiver's CPU, ms an object |", "|---" * 5 + "|"]
    for (kind, setting, many, at_once), some in itertools.groupby(sorted(runs, key=_order), _trial):
        rounds = list(some)
        rates, busy = [one.per_second for one in rounds], statistics.median(one.cpu_ms for one in rounds)
        name = kind if at_once else f"{kind}, with Nagle's algorithm"
        rate = f"{statistics.median(rates):.0f} ({min(rates):.0f} to {max(rates):.0f})"
        lines.append(f"| {name} | {setting or 'none'} | {many} | {rate} | {busy:.2f} |")
    return "\n".join(lines)


def _trial(one: Taken) -> tuple[str, str, int, bool]:
    return one.receiver, one.setting, one.associations, one.at_once


def _order(one: Taken) -> tuple[bool, int, int]:
    return not one.at_once, one.associations, TRIALS.index(_trial(one))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--slices", type=int, default=1000)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--place", type=Path, default=None, help="a folder on the disk that is written to")
    parser.add_argument("--record", action="store_true")
    parser.add_argument("--receive", nargs=4, help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.receive:
        kind, setting, folder, port = given.receive
        receive(kind, setting, Path(folder), int(port))
        return
    with tempfile.TemporaryDirectory(dir=given.place) as place:
        sent = slices(Path(place) / "sent", given.slices)
        runs = []
        for number in range(given.rounds):
            for trial in TRIALS[:: 1 if number % 2 else -1]:
                at_once = trial[-1]
                runs.append(taken(trial, sent if at_once else sent[: len(sent) // 10], Path(place)))
                print(runs[-1], file=sys.stderr, flush=True)
    print(table(runs))
    if given.record:
        about = (
            f"{given.slices} CT slices of 512 kB from storescu over loopback, median (range) of {given.rounds} rounds "
            "in which the receivers take turns. fsync: when the receiver waits for the disk; storescp never does, and "
            "`afterwards` counts a sync of its disk after the last object, for the same promise in the end. "
            "Receiver and sender share the processor."
        )
        record("ingest", "Receiving", f"{about}\n\n{table(runs)}", {"runs": [asdict(one) for one in runs]})


if __name__ == "__main__":
    main()
