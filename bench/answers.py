"""What becomes of a result as each kind of DICOM object: which series bear it, through a PACS and back, at what cost.

    python bench/answers.py matrix --record            # docs/answers-matrix.md, every series of the corpus
    python bench/answers.py cost --record              # processor time and memory of the writers

The result is simulated by rule: a ball and a bar, their volumes and a probability. An object is valid if no judge finds
an error: dciodvfy (dicom3tools; it knows no label maps, which highdicom reads instead, and
of pictures we alone), dsrdump for reports, dcmpschk
for presentation states, pdfinfo for pages. Where Orthanc is installed, masks, label maps, parametric maps and outlines
go to it by C-STORE and are fetched again before they are compared with what was written.
"""

from __future__ import annotations

import json
import re
import shutil
import subprocess
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import ExitStack
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
from beside import PLACE, ROOT, Program, arguments, interleaved, record

sys.path.insert(0, str(ROOT / "tests"))

from hilum.errors import HilumError
from hilum.files import file_formats
from hilum.files.dicom import object_identity, uids
from hilum.files.dicom.reading import rtstruct_reading, seg_reading
from hilum.files.dicom.writing.dicom_answers import ANSWERS, Result
from hilum.prediction import result_files
from hilum.values import Code, Finding, Image, Label, Map

PAGE = ROOT / "docs" / "answers-matrix.md"
LIVER = Code("SCT", "10200004", "Liver")
SLICES, LABELS, SIZE, MANY = 800, 20, 512, 98
VALUE = re.compile(r"= <([^>]*)>")  # as dciodvfy states a wrong one


# -- a result that is simulated by rule -------------------------------------------------------------------------------


def simulated(source: Image, labels: int = 2) -> Result:
    """A ball of the first label and bars of the others on an image, with findings and a map."""
    shape = source.geometry.shape
    marked = np.zeros(shape, np.uint8)
    middle, places = np.array(shape) / 2, np.ogrid[tuple(slice(n) for n in shape)]
    away = sum(((axis - m) / max(m, 1)) ** 2 for axis, m in zip(places, middle, strict=True))
    marked[away < 0.4] = 1
    for value in range(2, labels + 1):
        at = (value - 2) * max(1, shape[0] // labels)
        marked[at : at + max(1, shape[0] // (2 * labels)), : max(1, shape[1] // 3)] = value
    named = tuple(
        Label(v, "Liver" if v == 1 else f"part {v}", (40 + v, 120, 200), LIVER if v == 1 else None)
        for v in range(1, labels + 1)
    )
    voxel = source.geometry.voxel_volume if source.geometry.is_volume else None
    rows = [
        Finding(label.name, float((marked == label.value).sum()) * voxel / 1000, "ml", group=label.name,
                codes=(LIVER,) if label.value == 1 else (), label=label.value)
        for label in named
        if voxel is not None
    ]  # fmt: skip
    rows.append(Finding("effusion", True, probability=0.8, calibrated=True))
    numbers = np.asarray(away, np.float32)
    maps = {"total": Map(numbers, "nats"), "enhanced": Map(numbers, is_image=True)}
    # Of a series of several volumes each is marked alike.
    whole = marked if source.frames is None else np.stack([marked] * source.frames)
    result = Result(source, "hilum simulated", [("", whole, named)], tuple(rows), maps=maps, classes=("effusion",))
    return replace(result, page=partial(result_files.draw_result_page, result, "For research use only"))


def written(kind: str, result: Result, folder: Path) -> list[Path]:
    """The objects of one kind."""
    return list(ANSWERS[kind].write(result, folder / "case"))


# -- judges -----------------------------------------------------------------------------------------------------------


def faults(kind: str, path: Path, *, is_picture: bool) -> list[str]:
    """What the judges of a kind say against an object."""
    if kind == "labelmap":
        if is_picture:  # highdicom's reader asks for a slice thickness, which pictures have not
            return []
        import highdicom

        try:
            highdicom.seg.segread(path)
        except (AttributeError, ValueError, KeyError) as error:
            return [f"highdicom: {error}"]
        return []
    found = [line for line in _said("dciodvfy", "-new", str(path)) if line.startswith("Error")]
    if kind == "sr":
        found += [line for line in _said("dsrdump", str(path)) if line.startswith("E:")]
    if kind == "gsps":
        found += [line for line in _said("dcmpschk", str(path)) if line.startswith("Error")]
    if kind == "pdf":
        import pydicom

        dataset = pydicom.dcmread(path)
        page = path.with_suffix(".pdf")
        page.write_bytes(dataset.EncapsulatedDocument[: dataset.EncapsulatedDocumentLength])
        told = subprocess.run(["pdfinfo", page], check=False, capture_output=True, text=True)
        found += [] if told.returncode == 0 and "Pages:" in told.stdout else [told.stderr.strip()]
    return found


def wrong_values(source: Image) -> frozenset[str]:
    """The values of a source that are not valid: a result repeats what names patient, study and images as it stands."""
    paths = source.source.paths[:1] if source.source is not None else ()
    found = [line for path in paths for line in _said("dciodvfy", "-new", str(path)) if line.startswith("Error")]
    return frozenset(value[1] for line in found if (value := VALUE.search(line)))


def _said(*command: str) -> list[str]:
    if shutil.which(command[0]) is None:
        sys.exit(f"{command[0]} is not installed (Debian: dicom3tools, dcmtk). Without a judge the table says nothing.")
    told = subprocess.run(command, check=False, capture_output=True, text=True, errors="replace")
    return (told.stdout + told.stderr).splitlines()


def comes_back(kind: str, result: Result, path: Path) -> str:
    """What of an object differs from what was written; empty where it is the same."""
    [(_, truth, labels)] = result.label_maps
    geometry = result.source.geometry
    truth = truth if truth.ndim == geometry.ndim else truth[0]
    if kind in ("seg", "labelmap"):
        again = seg_reading.read_segmentation(path, on=geometry)
        numbers = {n: label.value for n, label in enumerate(labels, 1)}
        found = np.vectorize(lambda n: numbers.get(int(n), 0))(again.data[0])
        return "" if np.array_equal(found, truth) else f"{(found != truth).sum()} voxels differ"
    if kind == "rtstruct":
        found = rtstruct_reading.rasterise_regions(path, geometry).data[0]
        share = np.mean(found[(truth > 0) | (found > 0)] != truth[(truth > 0) | (found > 0)])
        return "" if share <= 0.01 else f"{share:.1%} of the voxels differ"
    if kind == "pm":
        again = file_formats.read(path)
        places = again.geometry.to_world(np.argwhere(np.ones(again.geometry.shape, bool)))
        index = np.rint(geometry.to_index(places)).astype(int)
        own = np.asarray(next(iter(result.maps.values())).data)[tuple(index.T)]
        return "" if np.allclose(np.asarray(again.data[0]).ravel(), own) else "values differ"
    return ""


# -- the table --------------------------------------------------------------------------------------------------------


def matrix(data: Path, *, small: bool) -> tuple[str, dict[str, Any]]:
    """The page, and how many objects are valid, refused or faulty."""
    counts, notes = {"valid": 0, "refused": 0, "faulty": 0}, dict[str, int]()
    alike: dict[str, list[str]] = {}  # {cells of a row: series of which they hold}
    with ExitStack() as stack:
        pacs = _pacs(stack)
        for name, source in images_of(data, small=small):
            if isinstance(source, HilumError):
                alike.setdefault(" | ".join([*["–"] * len(ANSWERS), _short(source)]), []).append(name)
                continue
            cells, known = [], wrong_values(source)
            for kind in ANSWERS:
                cell, reason = judged(kind, source, pacs, known)
                counts[{"yes": "valid", "yes*": "valid", "no": "refused"}.get(cell, "faulty")] += 1
                number = notes.setdefault(reason, len(notes) + 1) if reason else 0
                cells.append(f"{cell}{f' [{number}]' if number else ''}")
            print(name, cells, file=sys.stderr, flush=True)
            alike.setdefault(" | ".join([*cells, ""]), []).append(name)
    lines = [f"| {', '.join(names)} | {cells} |" for cells, names in alike.items()]
    head = ["source", *ANSWERS, "note"]
    table = [f"| {' | '.join(head)} |", "|---" * len(head) + "|", *lines]
    listed = [f"{number}. {reason}" for reason, number in notes.items()]
    through = "Masks, label maps, maps and outlines went through Orthanc and back." if pacs else "Orthanc: not tried."
    text = "\n".join(
        [
            "# Which series bear which answer",
            "",
            "Written by `python bench/answers.py matrix --record`. `yes`: no judge finds an error, and what a viewer "
            "reads lies on the voxels of the series (structure sets: at most 1 % of the voxels differ); `yes*`: "
            "so but for values of patient, study or image that are wrong in the source itself and repeated as they "
            "stand; `no`: refused, with the reason; `fault`: a judge finds the error that is quoted; "
            f"–: the series itself is refused. {through}",
            "",
            *table,
            "",
            *listed,
        ]
    )
    return text + "\n", {**counts, "through_orthanc": pacs is not None}


def judged(
    kind: str, source: Image, pacs: Callable[[Path], Path] | None, known: frozenset[str] = frozenset()
) -> tuple[str, str]:
    """`yes`, `yes*`, `no` or `fault`, and why. known: values that the judge finds wrong in the source itself"""
    from hilum.prediction import answers
    from hilum.prediction.answers import WantedFiles

    result = simulated(source)
    with tempfile.TemporaryDirectory() as folder, warnings.catch_warnings():
        warnings.simplefilter("ignore")  # the corpus is odd on purpose
        wanted = WantedFiles(answers=(kind,))
        try:
            paths, lacking = answers.write_answers(result, (kind,), Path(folder) / "case", wanted)
        except HilumError as error:
            return "no", error.problem
        if not paths:
            return "no", lacking[0].what.partition(": ")[2] if lacking else "nothing is written"
        repeats = False
        for path in paths:
            found = faults(kind, path, is_picture=source.geometry.is_picture)
            own = [line for line in found if (value := VALUE.search(line)) is None or value[1] not in known]
            repeats = repeats or len(own) < len(found)
            if own:
                return "fault", own[0]
            if kind in ("seg", "labelmap", "rtstruct", "pm"):
                through = pacs(path) if pacs else path
                try:
                    differs = comes_back(kind, result, through)
                except HilumError as error:
                    differs = error.problem
                if differs:
                    return "fault", differs
    return "yes*" if repeats else "yes", ""


def images_of(data: Path, *, small: bool) -> Iterator[tuple[str, Image | HilumError]]:
    """Of each series and each single object the first image that can be read, or why none can."""
    series = [path for path in sorted((data / "dicom" / "series").iterdir()) if path.is_dir()]
    files = [path for path in sorted((data / "dicom" / "files").iterdir()) if path.is_file()]
    images = [path for path in files if file_formats.format_of(path) == "dicom" and not _is_result(path)]
    for path in series[:4] if small else series + images:
        refusal = None
        try:
            volumes = file_formats.read_volumes(path)
        except HilumError as error:
            yield path.name, error
            continue
        for key in volumes:
            try:
                image = volumes[key]
                np.asarray(image.data)
            except HilumError as error:
                refusal = error
                continue
            yield path.name, image
            break
        else:
            yield path.name, refusal or HilumError("holds no image", path.name, "")


def _is_result(path: Path) -> bool:
    """Whether an object is a result itself, such as a SEG, and no image that a model is given.

    CT, MR and PET images may be either: they are looked at.
    """
    try:
        identity = object_identity.read_identity(path)
    except HilumError:
        return False
    classes = {sop_class for answer in ANSWERS.values() for sop_class in answer.sop_classes} - {*uids.DERIVED_SERIES}
    return identity.sop_class in classes


def _pacs(stack: ExitStack) -> Callable[[Path], Path] | None:
    """What stores an object in Orthanc and gives the path of what it gives out; None where it is not installed."""
    if shutil.which("Orthanc") is None:
        return None
    from hilum.service.dicom import sending
    from hilum.service.dicom.dicom_listening import DicomPeer
    from service.conftest import orthanc_running

    folder = Path(stack.enter_context(tempfile.TemporaryDirectory()))
    server = stack.enter_context(orthanc_running(folder))
    peer = DicomPeer("orthanc", server.ae_title, "127.0.0.1", server.port)

    def through(path: Path) -> Path:
        server.empty()
        [sent] = sending.send_files("HILUM", peer, [path])
        if not sent.is_stored:
            raise ValueError(f"Orthanc did not take {path.name}: {sent.problem}")
        [instance] = server.ask("/instances")
        back = path.with_name("back.dcm")
        back.write_bytes(server.ask(f"/instances/{instance}/file"))
        return back

    return through


def _short(error: HilumError) -> str:
    return error.problem.replace("|", "/").split(",")[0][:120]


# -- cost -------------------------------------------------------------------------------------------------------------


def cost(given: Any) -> tuple[str, dict[str, Any]]:
    """Each writer in a process of its own; ratios are taken within a round."""
    slices, labels, size = (8, 4, 64) if given.small else (SLICES, LABELS, SIZE)
    folder = PLACE / f"answers-{size}-{slices}"
    made_series(folder, slices, size)
    sides = ["seg", "labelmap", "seg,sr", ",".join(ANSWERS)]
    script = str(Path(__file__).resolve())
    programs = [
        Program(
            name, [sys.executable, script, "side", "--kinds", name, "--labels", str(labels), "--series", str(folder)]
        )
        for name in sides
    ]
    programs.append(Program(
        f"{MANY} labels", [sys.executable, script, "side", "--kinds", "labelmap", "--labels", str(MANY), "--series",
                           str(folder), "--read"]))  # fmt: skip
    table = interleaved(programs, given.repeats, given.threads)
    rows = [
        {"program": row["program"], "repeat": row["repeat"], "problem": row["problem"], **(row["said"] or {})}
        for _, row in table.iterrows()
    ]
    lines = [
        "| objects | processor s of writing | peak over reading, MiB | seconds of reading again |",
        "|---|---|---|---|",
    ]
    for row in rows:
        if row["problem"]:
            lines.append(f"| {row['program']} | {row['problem']} | | |")
            continue
        each = ", ".join(f"{kind} {seconds:.2f}" for kind, seconds in row["cpu"].items())
        again = f"{row['read_s']:.1f}" if row.get("read_s") is not None else ""
        lines.append(
            f"| {row['program']} | {sum(row['cpu'].values()):.1f} ({each}) | {row['peak_mib']:.0f} | {again} |"
        )
    return "\n".join(lines), {"rows": rows, "slices": slices, "labels": labels, "size": size}


def side(kinds: Sequence[str], labels: int, folder: Path, *, reads: bool) -> dict[str, Any]:
    """Processor seconds of each writer, and the peak of memory beyond what the result itself takes."""
    source = file_formats.read(folder)
    result = simulated(source, labels)
    np.asarray(result.source.data)
    Path("/proc/self/clear_refs").write_text("5")  # the peak so far is that of making the result
    before, cpu, again = _peak(), dict[str, float](), None
    with tempfile.TemporaryDirectory() as out:
        for kind in kinds:
            began = time.process_time()
            paths = written(kind, result, Path(out))
            cpu[kind] = time.process_time() - began
            if reads:
                import highdicom

                began = time.perf_counter()
                highdicom.seg.segread(paths[0]).get_volume(combine_segments=True)
                again = time.perf_counter() - began
            if kind == "seg":
                result = replace(result, segmentations={paths[0]: result.label_maps[0][2]})
    return {"cpu": cpu, "peak_mib": _peak() - before, "whole_mib": _peak(), "read_s": again}


def _peak() -> float:
    """MiB, the most that was resident since the peak was last forgotten."""
    [line] = [line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith("VmHWM")]
    return int(line.split()[1]) / 1024


def made_series(folder: Path, slices: int, size: int) -> None:
    """A CT of so many slices, which stays for the next run."""
    from written_dicom import write_slice

    if folder.is_dir() and len(list(folder.glob("*.dcm"))) == slices:
        return
    folder.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(-1000, 1000, (size, size), "i2")
    for number in range(slices):
        write_slice(folder / f"{number:04}.dcm", pixels, position=(0.0, 0.0, float(number)), InstanceNumber=number + 1)


def main() -> None:
    parser = arguments(__doc__ or "", repeats=1)
    parser.add_argument("part", choices=("matrix", "cost", "side"))
    parser.add_argument("--kinds", default="seg")
    parser.add_argument("--labels", type=int, default=LABELS)
    parser.add_argument("--series", type=Path)
    parser.add_argument("--read", action="store_true")
    given = parser.parse_args()
    if given.part == "side":
        print(json.dumps(side(given.kinds.split(","), given.labels, given.series, reads=given.read)))
    elif given.part == "matrix":
        text, counts = matrix(given.data, small=given.small)
        print(json.dumps(counts))
        if given.record:
            PAGE.write_text(text, encoding="utf-8")
        else:
            print(text)
    else:
        table, data = cost(given)
        print(table)
        if given.record:
            record("answers_cost", "What answers cost", table, data)


if __name__ == "__main__":
    main()
