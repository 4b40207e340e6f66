"""Damaged image files, by number, through the readers: each is read or refused, in bounded time and memory.

python bench/fuzz.py --files 20000 [--first 0] [--resume] [--data ../shared/data]

Each file is read in a process that reads one after the other: 20 s, 2 s of a processor and another for each MiB of the
file or the decoded image, and 1.5 times the decoded image + 64 MiB are its bounds. Outcomes are counted; an exception
that is none of ours, a hang, slowness, a crash or too much memory is a failure, the exit is then 1, and the file is
kept in .bench/fuzz/ under its number. `make fuzz` runs it.
"""

from __future__ import annotations

import argparse
import gc
import json
import math
import os
import resource
import selectors
import subprocess
import sys
import tempfile
import time
from collections import Counter
from collections.abc import Iterator, Sequence
from contextlib import ExitStack, suppress
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parent))

import cv2
import numpy as np
import PIL.Image
import tifffile
from mutations import Corpus, Mutant

from hilum.errors import HilumError
from hilum.files import file_formats
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import rtstruct_reading, sr_reading
from hilum.files.dicom.uids import REPORT_CLASSES, STRUCTURE_SET
from hilum.values import Geometry, Image

ROOT = Path(__file__).resolve().parent.parent
DATA = Path(os.environ.get("HILUM_TEST_DATA", ROOT.parent / "shared" / "data"))
# For it highdicom reads a table of the standard, once in a process.
SLIDE = ROOT / "data" / "dicom" / "files" / "highdicom_sm_image.dcm"
PLACE = ROOT / ".bench" / "fuzz"
SECONDS = 20.0
SLACK = 64 << 20
RATIO = 1.5
# More than this is no measurement any more: allocations fail.
ADDRESS_SPACE = 6 << 30
LARGEST_FILE = 1 << 21
# Seconds of a processor that a file may take, and that each MiB of it, or of what it decodes to, may add.
PROCESSOR_SECONDS, SECONDS_PER_MIB = 2.0, 1.0
FAILURES = ("exception", "hang", "slow", "crash", "memory")


@dataclass(frozen=True)
class Outcome:
    """What became of one file: read, refused, or one of FAILURES; decoded, peak: bytes."""

    number: int
    kind: str
    what: str
    seconds: float
    decoded: int = 0
    peak: int = 0
    because: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--files", type=int, default=20_000, help="how many")
    parser.add_argument("--first", type=int, default=0, help="number of the first")
    parser.add_argument("--data", type=Path, default=DATA, help="folder of whole files")
    parser.add_argument("--resume", action="store_true", help="go on where a run with these numbers ended")
    parser.add_argument("--worker", action="store_true", help=argparse.SUPPRESS)
    given = parser.parse_args()
    if given.worker:
        work()
        return
    PLACE.mkdir(parents=True, exist_ok=True)
    record = PLACE / f"outcomes_{given.first}.jsonl"
    if not given.resume:
        record.unlink(missing_ok=True)
    known = [Outcome(**json.loads(line)) for line in record.read_text().splitlines()] if record.exists() else []
    numbers = range(given.first + len(known), given.first + given.files)
    with record.open("a") as file:
        for outcome in fuzzed(given.data, numbers, keep=PLACE):
            file.write(json.dumps(asdict(outcome)) + "\n")
            file.flush()
            known.append(outcome)
            if len(known) % 500 == 0:
                print(f"{len(known)} of {given.files}: {dict(Counter(one.kind for one in known))}", flush=True)
    print(table(known))
    failed = [one for one in known if one.kind in FAILURES]
    print("\n".join(f"{one.number} {one.what}: {one.kind} {one.because}" for one in failed))
    sys.exit(bool(failed))


def table(outcomes: list[Outcome]) -> str:
    """Outcomes of each format, in Markdown."""
    kinds = ("read", "refused", *FAILURES)
    counts = Counter((one.what, one.kind) for one in outcomes)
    lines = [f"| format | {' | '.join(kinds)} |", f"|---|{'---:|' * len(kinds)}"]
    for what in [*sorted({one.what for one in outcomes}), "all"]:
        numbers = [sum(n for (own, kind), n in counts.items() if kind == one and what in (own, "all")) for one in kinds]
        lines.append(f"| {what} | {' | '.join(map(str, numbers))} |")
    return "\n".join(lines)


def fuzzed(data: Path, numbers: range, *, largest: int = LARGEST_FILE, keep: Path | None = None) -> Iterator[Outcome]:
    """What becomes of the damaged files of these numbers; `keep`: where those that fail stay"""
    with tempfile.TemporaryDirectory() as made, ExitStack() as stack:
        corpus = Corpus.below([data, examples(Path(made))], largest)
        worker = stack.enter_context(Worker())
        for number in numbers:
            mutant = corpus.mutant(number)
            with tempfile.TemporaryDirectory() as folder:
                outcome = worker.read(mutant, mutant.written(Path(folder)))
            if outcome.kind in FAILURES and keep is not None:
                (keep / str(number)).mkdir(parents=True, exist_ok=True)
                mutant.written(keep / str(number))
            yield outcome


class Worker:
    """The process that reads; one that hangs or dies is replaced.

    script: a program and its arguments that answers each line with one of JSON; this one where nothing is given
    """

    def __init__(self, script: Sequence[str] = (__file__,)) -> None:
        self._script = tuple(script)
        self._process: subprocess.Popen[bytes] | None = None

    def __enter__(self) -> Worker:
        return self

    def __exit__(self, *_: object) -> None:
        self._end()

    def read(self, mutant: Mutant, path: Path) -> Outcome:
        """What the process says of a file, or what became of the process."""
        start = time.monotonic()
        answer = self.ask(str(path))
        return Outcome(mutant.number, what=kind_of(mutant), seconds=round(time.monotonic() - start, 3), **answer)

    def ask(self, question: str) -> dict[str, Any]:
        """What the process answers to a line; `kind` and `because` where it hung or died."""
        process = self._running()
        assert process.stdin is not None and process.stdout is not None
        with suppress(BrokenPipeError):
            process.stdin.write(f"{question}\n".encode())
            process.stdin.flush()
        with selectors.DefaultSelector() as waiting:
            waiting.register(process.stdout, selectors.EVENT_READ)
            answered = bool(waiting.select(SECONDS))
        line = process.stdout.readline() if answered else b""
        if line:
            answer: dict[str, Any] = json.loads(line)
            return answer
        self._end()
        return {"kind": "crash" if answered else "hang", "because": f"exit {process.returncode}"}

    def _running(self) -> subprocess.Popen[bytes]:
        if self._process is None:
            command = [sys.executable, *self._script, "--worker"]
            quiet = subprocess.DEVNULL
            self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=quiet)
            assert self._process.stdout is not None
            self._process.stdout.readline()  # its imports are done
        return self._process

    def _end(self) -> None:
        if self._process is not None:
            self._process.kill()
            self._process.wait()
            self._process = None


def kind_of(mutant: Mutant) -> str:
    """The suffix by which a format is counted."""
    name = mutant.name.lower()
    return next((s for s in (".nii.gz", ".seg.nrrd", ".mnc.gz") if name.endswith(s)), Path(name).suffix or "no suffix")


def work() -> None:
    """Read the files that are named on standard input, one a line; a line of JSON says what became of each."""
    answers = os.fdopen(os.dup(1), "w")  # libraries may print
    os.dup2(2, 1)
    warm_up()
    resource.setrlimit(resource.RLIMIT_AS, (ADDRESS_SPACE, resource.RLIM_INFINITY))
    gc.collect()
    gc.freeze()
    print("{}", file=answers, flush=True)
    for line in sys.stdin:
        print(json.dumps(judged(Path(line.rstrip("\n")))), file=answers, flush=True)


def judged(path: Path) -> dict[str, object]:
    """The outcome of reading a file within its bounds."""
    gc.collect()
    base, decoded, because, start = reset_peak(), [0], "", time.process_time()
    try:
        read_all(path, decoded)
        kind = "read"
    except HilumError as error:
        kind, because = "refused", str(error)
        if not (error.problem and error.where and error.remedy):
            kind = "exception"
    except Exception as error:  # that is what is looked for
        kind, because = "exception", f"{type(error).__name__}: {error}"[:500]
    peak = max(0, peak_memory() - base)
    if peak > RATIO * max(decoded) + SLACK:
        kind = "memory"
    taken, mib = time.process_time() - start, max(path.stat().st_size, *decoded, 0) / (1 << 20)
    if taken > PROCESSOR_SECONDS + SECONDS_PER_MIB * mib:
        kind, because = "slow", f"{taken:.1f} s of a processor. {because}"
    return {"kind": kind, "because": because[:500], "decoded": max(decoded), "peak": peak}


def read_all(path: Path, decoded: list[int]) -> None:
    """Every volume of a file, whole and in part; of DICOM also what is no image. `decoded`: bytes of each volume"""
    if path.suffix.lower() in (".dcm", "") and (sop_class := header_reading.read_header(path).sop_class):
        if sop_class == STRUCTURE_SET:
            rtstruct_reading.rasterise_regions(path, Geometry((64, 64, 8), np.diag([4.0, 4.0, 4.0, 1.0])))
            return
        if sop_class in REPORT_CLASSES:
            sr_reading.read_report(path)
            return
    volumes = file_formats.read_volumes(path)
    for name in volumes:
        image = volumes[name]
        decoded.append(math.prod(image.shape) * image.dtype.itemsize)
        data = image.data
        decoded[-1] = max(decoded[-1], data.nbytes)
        assert data.shape == image.shape and data.dtype == image.dtype
        del data
        part = image.reader()((*(slice(0, size) for size in image.shape[:-1]), slice(0, 1)))
        assert part.shape == (*image.shape[:-1], 1)


def warm_up() -> None:
    """Read a whole file of each kind, so that no import and no table of a library counts as a file's memory."""
    with tempfile.TemporaryDirectory() as folder:
        for path in [SLIDE, *sorted(examples(Path(folder)).iterdir())]:
            with suppress(HilumError):
                read_all(path, [])


def examples(folder: Path) -> Path:
    """A small file of each format that can be written here; the corpora have few of these."""
    random = np.random.default_rng(0)
    volume = Image(random.integers(0, 9, (1, 6, 7, 8), np.int16), Geometry.of_spacing((6, 7, 8), (1, 2, 3)))
    picture = Image(
        random.integers(0, 99, (3, 20, 30), np.uint8), Geometry.of_pixels((20, 30)), channels=("R", "G", "B")
    )
    series = Image(random.normal(size=(2, 50)), Geometry.of_pixels((50,)))
    for name in ("volume.nii", "volume.nii.gz", "volume.nrrd", "volume.mha", "volume.tif"):
        file_formats.write(volume, folder / name)
    for name in ("picture.png", "picture.tif", "picture.npy"):
        file_formats.write(picture, folder / name)
    file_formats.write(series, folder / "series.csv")
    np.savez(folder / "arrays.npz", one=volume.data[0], two=picture.data[0])
    others(folder, volume.data[0], picture.data.transpose(1, 2, 0))
    return folder


def others(folder: Path, volume: np.ndarray, picture: np.ndarray) -> None:
    """Formats that are read and not written."""
    raw = volume.astype("<i2").tobytes(order="F")
    (folder / "text.nrrd").write_text(
        "NRRD0004\ntype: short\ndimension: 3\nsizes: 6 7 8\nencoding: ascii\n\n" + " ".join(map(str, volume.ravel("F")))
    )
    sizes = "dim: 6,7,8\nvox: 1,1,1\nlayout: +0,+1,+2\ndatatype: int16le\n"
    (folder / "volume.mif").write_bytes(f"mrtrix image\n{sizes}file: . 100\nEND\n".encode().ljust(100) + raw)
    header = "NDims = 3\nDimSize = 6 7 8\nElementType = MET_SHORT\nElementDataFile = detached.raw\n"
    (folder / "detached.mhd").write_text(header)
    (folder / "detached.raw").write_bytes(raw)
    for n, how in enumerate(
        ({}, {"tile": (16, 16), "compression": "lzw"}, {"compression": "jpeg"}, {"rowsperstrip": 3})
    ):
        tifffile.imwrite(folder / f"plain_{n}.tif", picture, photometric="rgb", **how)
    for suffix in ("bmp", "gif", "webp", "jp2", "jpg"):
        PIL.Image.fromarray(picture).save(folder / f"picture.{suffix}")
    frames = [PIL.Image.fromarray(np.roll(picture, n, 0)) for n in range(4)]
    frames[0].save(folder / "moving.gif", save_all=True, append_images=frames[1:], duration=100)
    for suffix, code in (("avi", "MJPG"), ("mp4", "mp4v")):
        clip = cv2.VideoWriter(str(folder / f"clip.{suffix}"), cv2.VideoWriter_fourcc(*code), 10, (64, 48))
        for frame in frames:
            clip.write(np.asarray(frame.resize((64, 48))))
        clip.release()
    edf(folder / "recording.edf", volume)


def edf(path: Path, volume: np.ndarray) -> None:
    """A recording of two signals in two records."""
    samples = volume.size // 4
    fields = [
        (16, "EEG"),
        (80, ""),
        (8, "uV"),
        (8, "-100"),
        (8, "100"),
        (8, "-32768"),
        (8, "32767"),
        (80, ""),
        (8, samples),
    ]
    head = [
        "0".ljust(8),
        " " * 160,
        "01.01.0100.00.00",
        "768".ljust(8),
        " " * 44,
        "2".ljust(8),
        "1".ljust(8),
        "2".ljust(4),
    ]
    signals = "".join(str(value).ljust(width) * 2 for width, value in fields) + " " * 64
    path.write_bytes(("".join(head) + signals).encode() + volume.astype("<i2").tobytes()[: samples * 8])


def reset_peak() -> int:
    """Bytes in use now; the highest number of them is counted anew. On Linux; elsewhere nothing is measured."""
    with suppress(OSError):
        Path("/proc/self/clear_refs").write_text("5")
    return _status("VmRSS")


def peak_memory() -> int:
    """The most bytes in use since `reset_peak`."""
    return _status("VmHWM")


def _status(name: str) -> int:
    try:
        lines = Path("/proc/self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) << 10 for line in lines if line.startswith(f"{name}:")), 0)


if __name__ == "__main__":
    main()
