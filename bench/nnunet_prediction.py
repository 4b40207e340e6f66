"""The nnU-Net model of the test data: predicted by Hilum after `adopt`, and by nnU-Net itself.

    python bench/nnunet_prediction.py --record

One case from a fresh process, and the 40 cases of a cohort: time of the whole command, peak memory of all its
processes, and how far the results are those that nnU-Net wrote: the share of voxels that are equal and the Dice of each
class, in the worst case. Mirroring and steps are nnU-Net's on both sides. `adopt` is run once, its time stands apart;
its certificate is made with eight volumes that are none of the 40. "As it is" is the folder without `adopt`.
"""

from __future__ import annotations

import shutil
import sys
from pathlib import Path
from typing import Any

import pandas as pd
from agreement import compared
from beside import (
    HILUM,
    PLACE,
    Program,
    arguments,
    failures,
    interleaved,
    markdown,
    peer,
    ratio,
    record,
    versions,
)
from raw import LABELS, Raw, hippocampus

MODEL = "nnunet_hippocampus"
NNUNET, AS_IT_IS = "nnU-Net", "Hilum, as it is"
# Seconds after which a command is ended.
AT_MOST = 3600.0
# Volumes of the training part with which `adopt` makes its certificate.
CERTIFYING = 8


def main() -> None:
    parser = arguments(__doc__)
    parser.add_argument("--cases", type=int, help="of the cohort; all if not said")
    parser.add_argument("--alone", action="store_true", help="without nnU-Net")
    parser.add_argument("--backends", nargs="+", default=["auto", "onnx"], help="of Hilum, as `predict` takes them")
    given = parser.parse_args()
    repeats, cases = (1, 2) if given.small else (given.repeats, given.cases)
    python = None if given.alone else peer("nnunet")
    work = PLACE / "work" / f"nnunet_prediction{'-small' * given.small}"
    shutil.rmtree(work, ignore_errors=True)  # a result of an earlier run must not stand in for one that failed
    raw = hippocampus(given.data, work / "raw", train=1 if given.small else CERTIFYING, test=cases)
    stored = _stored(given.data / MODEL / "predictions", raw, work / "stored")
    package = work / "package"
    adopting = [HILUM, "adopt", str(given.data / MODEL), "--out", str(package), "--overwrite"]
    adopting += ["--images", str(raw.ours / "images")]
    adopted = interleaved([Program("Hilum adopt", adopting, at_most=AT_MOST)], 1, given.threads)
    if failures(adopted):
        sys.exit("; ".join(failures(adopted)))
    parts, data = (
        [markdown(adopted)],
        {"peer": {} if given.alone else versions("nnunet"), "adopt": adopted.to_dict("records"), "jobs": {}},
    )
    for job, inputs in _jobs(raw, work):
        programs = [
            *_ours(given.backends, package, given.data / MODEL, inputs[0], work, job),
            *([] if python is None else [_theirs(python, given.data, inputs[1], work, job)]),
        ]
        table = interleaved(programs, repeats, given.threads)
        wanted = _stored(stored, inputs[0], work / f"stored-{job.replace(' ', '-')}")
        agreements = {one.name: _worst(compared(_out(work, one.name, job), wanted, LABELS)) for one in programs}
        parts.append(_section(job, table, agreements, data))
    text = "\n\n".join(parts)
    print(text)
    if given.record:
        record("nnunet_prediction", "Predicting with an nnU-Net model", text, data)


def _jobs(raw: Raw, work: Path) -> list[tuple[str, tuple[Path, Path]]]:
    """(name, (images for us, images for nnU-Net)) of the two jobs."""
    one = (work / "one", work / "one_nnunet")
    for folder, whole in zip(one, (raw.test, raw.test_nnunet), strict=True):
        shutil.rmtree(folder, ignore_errors=True)
        folder.mkdir()
        shutil.copy(sorted(whole.iterdir())[0], folder)
    count = len(list(raw.test.iterdir()))
    return [("one case", one), (f"{count} cases", (raw.test, raw.test_nnunet))]


def _stored(source: Path, images: Raw | Path, folder: Path) -> Path:
    """The stored predictions of the images of this job alone."""
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    for image in (images.test if isinstance(images, Raw) else images).iterdir():
        shutil.copy(source / image.name, folder)
    return folder


def _ours(backends: list[str], package: Path, folder: Path, images: Path, work: Path, job: str) -> list[Program]:
    found = []
    for name, model, chosen in [
        (AS_IT_IS, folder, []),
        *((f"Hilum, {backend}", package, ["--backend", backend]) for backend in backends),
    ]:
        options = ["--out", str(_out(work, name, job)), "--overwrite", "--device", "cpu", *chosen]
        found.append(Program(name, [HILUM, "predict", str(model), str(images), *options], at_most=AT_MOST))
    return found


def _theirs(python: Path, data: Path, images: Path, work: Path, job: str) -> Program:
    script = str(python.with_name("nnUNetv2_predict_from_modelfolder"))
    out = str(_out(work, NNUNET, job))
    command = [
        str(python),
        script,
        "-i",
        str(images),
        "-o",
        out,
        "-m",
        str(data / MODEL),
        "-f",
        "all",
        "-device",
        "cpu",
    ]
    return Program(NNUNET, command, at_most=AT_MOST)


def _out(work: Path, program: str, job: str) -> Path:
    return work / "out" / f"{program}-{job}".replace(" ", "").replace(",", "-")


def _worst(table: pd.DataFrame) -> dict[str, Any]:
    """The case that agrees least, for each figure, and what is missing."""
    lowest = {name: float(table[name].min()) for name in ("equal", *LABELS)}
    problems = [f"{row['case']}: {row['problem']}" for _, row in table[table["problem"] != ""].iterrows()]
    return {**lowest, "cases": len(table), "problems": problems}


def _section(job: str, table: pd.DataFrame, agreements: dict[str, dict[str, Any]], data: dict[str, Any]) -> str:
    lines = [f"### {job}", "", markdown(table, {"seconds": "seconds", "peak_mib": "peak memory, MiB"}), ""]
    lines += [
        f"| beside the stored predictions, worst case | voxels equal | {' | '.join(LABELS)} | cases |",
        "|---|---|---|---|---|",
    ]
    for name, one in agreements.items():
        each = " | ".join(f"{one[label]:.5f}" for label in LABELS)
        lines.append(f"| {name} | {one['equal']:.6f} | {each} | {one['cases']} |")
    ratios = {}
    ours = [name for name in agreements if name != NNUNET]
    pairs = [(NNUNET, name) for name in ours] + [(AS_IT_IS, name) for name in ours if name != AS_IT_IS]
    for slow, quick in pairs:
        for column, word in (("seconds", "time"), ("peak_mib", "memory")):
            try:
                found = ratio(table, quick, slow, column)
            except ValueError as error:
                lines += ["", f"{word} of {slow} / {quick}: not measured, {error}."]
                continue
            ratios[f"{word}: {slow} / {quick}"] = vars(found)
            text = f"{found.value:.2f} ({found.low:.2f} to {found.high:.2f})"
            lines += ["", f"{slow} takes {text} times the {word} of {quick}."]
    lines += [
        f"\nWithout agreement, {name}: {'; '.join(one['problems'])}."
        for name, one in agreements.items()
        if one["problems"]
    ]
    lines += [f"\nFailed: {one}." for one in failures(table)]
    data["jobs"][job] = {"runs": table.to_dict("records"), "agreement": agreements, "ratios": ratios}
    return "\n".join(lines)


if __name__ == "__main__":
    main()
