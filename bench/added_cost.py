"""What explanations and audits add: `explain --method gradcam` beside `predict`, `evaluate` with groups and without.

    python bench/added_cost.py --record

The models are short trainings: what is predicted takes as long whatever the weights are. Radiographs: PneumoniaMNIST
with drawn sexes and sites. Volumes: AdrenalMNIST3D. Methods are tested before the first timed call, since a model's
verdicts are found once and kept. Each run is a process of its own, start-up included.
"""

from __future__ import annotations

import shutil
import subprocess
import sys
import tempfile
from collections.abc import Mapping
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
import PIL.Image
from beside import ISOCENTER, PLACE, Program, arguments, failures, interleaved, markdown, ratio, record

# {kind: (file of the data, images that are explained)}
KINDS: Mapping[str, tuple[str, int]] = {"radiographs": ("pneumoniamnist", 200), "volumes": ("adrenalmnist3d", 60)}
# Times as long as `predict`, and as `evaluate` without groups.
ASKED_EXPLAIN, ASKED_GROUPS = 3.0, 1.1


def main() -> None:
    given = arguments(__doc__, repeats=3).parse_args()
    repeats, parts, words = 1 if given.small else given.repeats, [], list[str]()
    PLACE.mkdir(exist_ok=True)
    for kind, (name, count) in KINDS.items():
        data = given.data / "medmnist" / f"{name}.npz"
        run = short_training(PLACE / "work" / f"added-cost-{kind}", data, given.threads)
        with tempfile.TemporaryDirectory(dir=PLACE) as out:
            images = images_of_test(data, Path(out) / "images", 8 if given.small else count)
            table = _table(run, Path(out) / "groups.csv")
            _quietly(["explain", run, images, "--method", "gradcam", "--out", Path(out) / "first", "--threads", 1])
            timed = interleaved(_programs(run, data, images, table, Path(out)), repeats, given.threads)
        timed["program"] = f"{kind}: " + timed["program"]
        parts.append(timed)
        words += _verdicts(kind, timed)
    table = pd.concat(parts, ignore_index=True)
    columns = {"seconds": "seconds", "cpu_seconds": "processor seconds", "peak_mib": "peak memory, MiB"}
    text = "\n\n".join([markdown(table, columns), *words, *(f"Failed: {one}." for one in failures(table))])
    print(text)
    if given.record:
        record("added_cost", "What explanations and groups cost", text, {"runs": table.to_dict("records")})


def short_training(run: Path, data: Path, threads: int, *words: str) -> Path:
    """A training of a few steps, made once; words: its further arguments."""
    if not (run / "report.html").is_file():
        shutil.rmtree(run, ignore_errors=True)
        _quietly(["train", data, "--set", "training.steps=20", *words, "--threads", threads, "--out", run])
    return run


def images_of_test(data: Path, folder: Path, count: int) -> Path:
    """The first test images as files."""
    folder.mkdir()
    with np.load(data) as arrays:
        for number, image in enumerate(arrays["test_images"][:count]):
            if image.ndim == 2:
                PIL.Image.fromarray(image).save(folder / f"{number:03}.png")
            else:
                nibabel.Nifti1Image(image, np.eye(4)).to_filename(folder / f"{number:03}.nii.gz")
    return folder


def _table(run: Path, file: Path) -> Path:
    """Drawn sexes and sites of the test cases."""
    cases = pd.read_csv(run / "evaluation" / "cases.csv")["case"]
    rng = np.random.default_rng(0)
    columns = {"sex": rng.choice(["F", "M"], len(cases)), "site": rng.choice(["a", "b", "c"], len(cases))}
    pd.DataFrame({"case": cases, **columns}).to_csv(file, index=False)
    return file


def _programs(run: Path, data: Path, images: Path, table: Path, out: Path) -> list[Program]:
    evaluate = ["evaluate", run, data, "--groups"]
    words = {
        "predict": ["predict", run, images, "--abstain", "mark"],  # a refused image would cost nothing
        "explain by gradcam": ["explain", run, images, "--method", "gradcam"],
        "evaluate": [*evaluate, "none"],
        "evaluate, groups": [*evaluate, "sex,site,sex*site", "--group-table", table],
    }
    return [
        Program(name, [ISOCENTER, *map(str, own), "--out", str(out / name.replace(" ", "-")), "--overwrite"])
        for name, own in words.items()
    ]


def _verdicts(kind: str, timed: pd.DataFrame) -> list[str]:
    pairs = {("predict", "explain by gradcam"): ASKED_EXPLAIN, ("evaluate", "evaluate, groups"): ASKED_GROUPS}
    found = []
    for (plain, more), asked in pairs.items():
        times = ratio(timed, f"{kind}: {plain}", f"{kind}: {more}", "cpu_seconds")
        found.append(
            f"{kind}, {more}: {times.value:.2f} ({times.low:.2f} to {times.high:.2f}) times the processor seconds of "
            f"{plain} (asked: at most {asked:g})."
        )
    return found


def _quietly(words: list[object]) -> None:
    subprocess.run([sys.executable, "-m", "isocenter", *map(str, words)], check=True, capture_output=True)


if __name__ == "__main__":
    main()
