"""One run of each kind of problem, on real or simulated data, with its report: `make examples MINUTES=2`.

    python bench/examples.py [NAME...] [--minutes 2] [--data ../shared/data] [--out examples]
    python bench/examples.py --minutes 5 --seeds 0 1 2 --resume --record

Each leaves its run in `<out>/<name>/` (of another seed in `<name>-seed<N>/`), whose `report.html` says what was trained
and how well it does. Minutes and memory are those of the whole command, from raw files to the report. Short trainings
show that the way is open from data to report, and are no measure of what can be reached. An evaluation of the test
cases follows in `<out>/<name>-evaluation/`, with explanations, shift between groups and worse images, as far as they
fit; it ends after --look minutes, and 0 leaves it out. The times of the survival example are simulated: the real ones
of Lung1 come with a table without images, which `train` refuses and `bench/survival.py table` scores. What failed, and
a kind for which no data are named, is said at the end, and the exit is then 1. With --resume what has ended well stays.
A new kind is one line in `EXAMPLES`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path

import nibabel
import numpy as np
import pandas as pd
from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, looked_at, summary, trained

import hilum
from hilum.evaluation import survival
from hilum.layouts import dataset_layouts
from hilum.planning import plan_file
from hilum.tasks import task_catalogue
from hilum.values import Image

HERE = Path(__file__).resolve().parent
MM3_PER_ML = 1000
# Of the simulated times: the median of an average case and the end of the study, in days.
MEDIAN, END = 700.0, 1500.0


@dataclass(frozen=True)
class Example:
    """What a kind of problem is shown on.

    kind:  as in `--task`
    data:  of the folder of real data
    about: what the references are, in words
    flags: of `hilum train`
    made:  from the folder of `data` and a new folder: the table to train on; without it `data` itself
    known: what was published for these data, or what is possible, with its source
    """

    kind: str
    data: str
    about: str
    flags: tuple[str, ...] = ()
    made: Callable[[Path, Path], Path] | None = None
    known: str = ""


def volumes(data: Path, out: Path) -> Path:
    """Images of hippocampi with the volume (ml) of what is marked in them."""
    rows = [{"image": str(image), "volume_ml": ml} for image, ml in _measured(data)]
    return _table(pd.DataFrame(rows), out)


def times(data: Path, out: Path) -> Path:
    """Images of hippocampi with SIMULATED times to an event: the smaller, the sooner; all end with the study."""
    images, ml = zip(*_measured(data), strict=True)
    hazard = (np.mean(ml) - np.array(ml)) / np.std(ml)
    found = np.random.default_rng(0).exponential(MEDIAN / np.log(2) * np.exp(-hazard))
    seen, happened = np.maximum(np.ceil(np.minimum(found, END)), 1).astype(int), (found <= END).astype(int)
    possible = survival.harrell_c(hazard, seen, happened)
    print(f"Harrell's c of the hazard itself over all {len(images)} images: {possible:.3f}", file=sys.stderr)
    table = {"image": [str(image) for image in images], "days": seen, "happened": happened}
    return _table(pd.DataFrame(table), out)


def counts(data: Path, out: Path) -> Path:
    """Blood smears and how many red cells are marked in each."""
    found = {case.id: case.references["boxes"].names.count("RBC") for case in dataset_layouts.read_dataset(data)}
    images = [str(data / "JPEGImages" / f"{case}.jpg") for case in found]
    return _table(pd.DataFrame({"image": images, "red_cells": found.values()}), out)


def observers(data: Path, out: Path) -> Path:
    """Fundus images with the vessels as two observers marked them; both eyes of a child stay together."""
    rows = []
    for image in sorted(data.glob("Image_*.jpg")):
        marked = {name: f"{image.with_suffix('')}_{name}HO.png" for name in ("1st", "2nd")}
        rows.append({"image": str(image), "patient": image.stem[:-1], **marked})
    return _table(pd.DataFrame(rows), out)


def diseases(data: Path, out: Path) -> Path:
    """Radiographs and whether they show COVID-19, ARDS, or another pneumonia; two of them may be there at once."""
    table = pd.read_csv(data / "metadata.csv")
    found = table["finding"].str.split(", ")
    columns = {
        "image": [str(data / "images" / name) for name in table["filename"]],
        "patient": table["patientid"],
        "age": table["age"],
        "sex": table["sex"],
        "covid": found.map(lambda names: int("COVID-19" in names)),
        "ards": found.map(lambda names: int("ARDS" in names)),
        "other": found.map(lambda names: int(not {"COVID-19", "ARDS"} & set(names))),
    }
    return _table(pd.DataFrame(columns), out)


def rhythms(data: Path, out: Path) -> Path:
    """SIMULATED pulse waves of 8 s at 50 Hz, one CSV a patient: in one folder even beats, in the other uneven ones."""
    rng, time_s = np.random.default_rng(0), np.arange(400) / 50
    for number in range(240):
        uneven = number % 2
        gaps = rng.uniform(0.6, 1.1) * (1 + uneven * rng.uniform(-0.35, 0.35, 20) + rng.normal(0, 0.02, 20))
        beats = np.cumsum(gaps) - rng.uniform(0, 1)
        wave = np.exp(-((time_s[:, None] - beats) ** 2) / 0.01).sum(axis=1) + rng.normal(0, 0.1, len(time_s))
        folder = out / "cases" / ("uneven" if uneven else "even")
        folder.mkdir(parents=True, exist_ok=True)
        pd.DataFrame({"time (s)": time_s, "pulse": wave}).to_csv(folder / f"patient{number:03}.csv", index=False)
    return out / "cases"


def few_slices(data: Path, out: Path) -> Path:
    """The hippocampi with every sixth slice of their masks alone, as somebody with little time contours them."""
    rows = []
    (out / "masks").mkdir(parents=True, exist_ok=True)
    for mask in sorted((data / "labels").glob("*.nii.gz")):
        image = nibabel.load(mask)
        contoured = np.asarray(image.dataobj).copy()
        kept = np.flatnonzero(contoured.any(axis=(0, 2)))[2::6]
        contoured[:, np.setdiff1d(np.arange(contoured.shape[1]), kept)] = 0
        nibabel.Nifti1Image(contoured, image.affine, image.header).to_filename(out / "masks" / mask.name)
        rows.append({"image": str((data / "images" / mask.name).resolve()), "mask": f"masks/{mask.name}"})
    return _table(pd.DataFrame(rows), out)


def clips(data: Path, out: Path) -> Path:
    """SIMULATED clips of a bright disc that beats, 9 to 16 frames: weakly (it loses 15 to 40 % of its area) or not."""
    rng, grid = np.random.default_rng(0), np.indices((64, 64))
    for number in range(160):
        weak, frames = number % 2, int(rng.integers(9, 17))
        lost = rng.uniform(0.15, 0.4) if weak else rng.uniform(0.45, 0.7)
        centre, radius = rng.uniform(24, 40, 2), rng.uniform(10, 18)
        time = np.sin(np.linspace(0, np.pi, frames)) ** 2
        away = np.hypot(*(grid - centre[:, None, None]))
        clip = [120.0 * (away < radius * np.sqrt(1 - lost * t)) + rng.normal(60, 25, away.shape) for t in time]
        volume = np.stack(clip, axis=-1)[:, :, None].clip(0, 255).astype(np.uint8)
        folder = out / "cases" / ("weak" if weak else "strong")
        folder.mkdir(parents=True, exist_ok=True)
        image = nibabel.Nifti1Image(volume, np.diag([1.5, 1.5, 8.0, 1.0]))
        image.header.set_zooms((1.5, 1.5, 8.0, 0.05))
        image.header.set_xyzt_units("mm", "sec")
        image.to_filename(folder / f"patient{number:03}.nii.gz")
    return out / "cases"


FINDINGS = ("--column", "patient=patient,finding:covid=covid,finding:ards=ards,finding:other=other")
WITH_COVARIATES = (*FINDINGS, "--set", "network.context=[age,sex]")
READERS = (
    "--column",
    "mask:first=1st,mask:second=2nd",
    "--set",
    "task.readers=soft",
    "--modality",
    "fundus",
)
MICROSCOPY = ("--modality", "microscopy")
# Yang et al., Scientific Data 2023.
MEDMNIST = "doi:10.1038/s41597-022-01721-8"
# With COCO's weights, on splits of their own. Abstracts.
DETECTORS = "21 detectors: AP50 .945 at best, Faster R-CNN .903 (doi:10.5755/j01.itc.54.3.39342)"
# In the author's words, of 110 patients in 22 folds.
GLIOMAS = "U-Net .836, readers .84 to each other (mateuszbuda.github.io/2017/12/01/brainseg.html)"
# Harrell's c, as `times` says it of all its images.
POSSIBLE = ".76 for who knows the hazard itself"
TIMES = ("--column", "time=days,event=happened", "--set", "task.unit=days", "--modality", "MR")

# One line each: a kind may be shown more than once.
EXAMPLES: Mapping[str, Example] = {
    "classification": Example(
        "classification", "medmnist/pneumoniamnist.npz", "pneumonia or none", known=f"AUC .991 at best ({MEDMNIST})"
    ),
    "grades": Example(
        "classification", "medmnist/retinamnist.npz", "grades of retinopathy", ("--set", "task.order=corn")
    ),
    "detection": Example("detection", "bccd", "blood cells in boxes", MICROSCOPY, known=DETECTORS),
    "anchors": Example(
        "detection", "bccd", "the same, by RetinaNet", (*MICROSCOPY, "--set", "network.name=retinanet"), known=DETECTORS
    ),
    "instances": Example("instances", "dsb2018", "nuclei one by one", MICROSCOPY),
    "outlines": Example(
        "instances", "dsb2018", "the same, by Mask R-CNN", (*MICROSCOPY, "--set", "network.name=mask_rcnn")
    ),
    "together": Example("segmentation+classification", "ultrasound", "a tumour's outline and its class at once"),
    "series": Example("classification", "", "SIMULATED pulse waves, even or uneven", (), rhythms),
    "findings": Example("findings", "multimodal", "diseases in radiographs", FINDINGS, diseases),
    "covariates": Example("findings", "multimodal", "the same, with age and sex", WITH_COVARIATES, diseases),
    "regression": Example("regression", "hippocampus", "volume in ml", ("--column", "value:volume=volume_ml"), volumes),
    "unlabelled": Example("representation", "medmnist/pneumoniamnist.npz", "none: views of radiographs are compared"),
    "pairs": Example(
        "registration",
        "hippocampus",
        "pairs of volumes, and two structures in both",
        ("--labels", "1=anterior,2=posterior"),
        known="third of Learn2Reg 2020 on its validation pairs .839 (arXiv:2010.10897)",
    ),
    "cleaner": Example(
        "enhancement", "hippocampus", "volumes without noise", ("--set", "task.damage={rician: [0.02, 0.1]}")
    ),
    "scans": Example(
        "reconstruction", "hippocampus", "volumes out of a part of k-space", ("--set", "task.operator=cartesian")
    ),
    "synthesised": Example("synthesis", "medmnist/pneumoniamnist.npz", "radiographs of two classes, made out of noise"),
    "pointed": Example("prompted", "hippocampus", "what somebody points at", ("--labels", "1=anterior,2=posterior")),
    "counts": Example("regression", "bccd", "number of red cells", ("--column", "value:cells=red_cells"), counts),
    "segmentation": Example(
        "segmentation",
        "hippocampus",
        "two structures",
        ("--labels", "1=anterior,2=posterior"),
        known="nnU-Net .890 in mean, five folds (arXiv:2505.16561)",
    ),
    "regions": Example(
        "segmentation",
        "hippocampus",
        "a part within the whole",
        ("--labels", "2+1=whole,1=anterior", "--modality", "MR"),
    ),
    "sparse": Example(
        "segmentation",
        "hippocampus",
        "every sixth slice contoured, scored in such",
        ("--labels", "1=anterior,2=posterior", "--set", "task.sparse=slices", "--modality", "MR"),
        few_slices,
    ),
    "clips": Example("classification", "", "SIMULATED clips of a beating disc, weak or strong", (), clips),
    "tumours": Example(
        "segmentation", "mri/lgg_flair", "low-grade gliomas in FLAIR", ("--modality", "MR"), known=GLIOMAS
    ),
    "hearts": Example(
        "segmentation",
        "mri/cardiac_sunnybrook",
        "left ventricle in cine slices",
        ("--modality", "MR", "--patient", "(.+)-IM-.*"),
        known="Dice .90 to .94 a good contour (doi:10.1016/j.media.2016.01.005)",
    ),
    "readers": Example("segmentation", "chasedb1", "vessels, two observers, soft", READERS, observers),
    "survival": Example("survival", "hippocampus", "SIMULATED times, by volume", TIMES, times, known=POSSIBLE),
}


@dataclass(frozen=True)
class Shown:
    """One training: its figure and where its report lies, or why there is none.

    low, high: 95 % interval over cases; None where there is none
    minutes:   of the whole command
    memory:    GiB at the most, of all its processes
    looks:     the report of the evaluation that followed
    """

    name: str
    seed: int
    problem: str = ""
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    cases: int = 0
    steps: int = 0
    minutes: float = 0.0
    memory: float = 0.0
    report: str = ""
    looks: str = ""
    commit: str = ""
    failed: bool = False


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="NAME", help=", ".join(EXAMPLES))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--look", type=float, default=15.0, help="minutes of each evaluation at the most; 0 for none")
    add_options(parser, "examples", minutes=2.0, of="of each training")
    given = parser.parse_args()
    if unknown := sorted(set(given.names) - set(EXAMPLES)):
        parser.error(f"there is no example {', '.join(unknown)}, only {', '.join(EXAMPLES)}")
    # All kinds once before any a second time: what is interrupted has then something of each.
    shown = [_shown(name, seed, given) for seed in given.seeds for name in given.names or EXAMPLES]
    if not given.names:
        shown += [Shown(kind, 0, "no data are named in bench/examples.py", failed=True) for kind in unnamed()]
    text = _words(shown)
    print(f"\n{text}")
    print("\n".join(path for one in shown for path in (one.report, one.looks) if path))
    if given.record:
        about = (
            f"Trainings of {given.minutes:g} minutes, from raw files to the report, each on {given.threads} of "
            f"{os.cpu_count()} cores by `hilum train` with the flags in `bench/examples.py`. So short a training "
            "shows that the way is open, and how far it leads in that time; [longer ones](#longer-trainings) "
            "have a table of their own. Published figures are of other splits and far longer trainings: for "
            "orientation. "
            f"Commits: {', '.join(dict.fromkeys(one.commit for one in shown if one.commit))}."
        )
        record("examples", "One table of every kind", f"{about}\n\n{text}", {"runs": [asdict(one) for one in shown]})
    sys.exit(any(one.failed for one in shown))


def unnamed() -> list[str]:
    """The kinds of problem that have no line."""
    return sorted(set(task_catalogue.task_names()) - {example.kind for example in EXAMPLES.values()})


def _shown(name: str, seed: int, given: argparse.Namespace) -> Shown:
    example, run = EXAMPLES[name], f"{name}-seed{seed}" if seed else name
    data, out = given.data.resolve() / example.data, given.out.resolve() / run
    if not data.exists():
        return Shown(name, seed, f"left out: {example.data} is not there")
    if (before := kept(run, given)) is not None:
        return Shown(**before)
    out.parent.mkdir(parents=True, exist_ok=True)
    source = data if example.made is None else example.made(data, out.parent / f"{name}-data")
    found = trained(run, [source, "--task", example.kind, *example.flags], seed, given)
    taken = {"minutes": found.seconds / 60, "memory": found.peak_mib / 1024, "commit": commit()}
    if found.returncode:
        about = f"failed with exit code {found.returncode}: see {run}.err in logs/"
        return Shown(name, seed, about, **taken, failed=True)
    looks, failed = looked_at(out, source, example.flags, given)
    figure = {**_figure(out), "report": str(out / "report.html")}
    shown = Shown(name, seed, **figure, **taken, looks=looks, failed=failed)
    keep(run, shown, given)
    print(f"{shown.metric} {_with_interval(shown)} in {shown.minutes:.1f} minutes", file=sys.stderr, flush=True)
    return shown


def _words(shown: Sequence[Shown]) -> str:
    """A line of each example, all its seeds together."""
    columns = ("example", "data", "figure", "mean (SD)", "seeds", "known", "cases", "steps")
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in dict.fromkeys(one.name for one in shown):
        runs = [one for one in shown if one.name == name]
        example, good = EXAMPLES.get(name), [one for one in runs if not one.problem]
        about = marked(example.data, f"{example.data}: {example.about}".removeprefix(": ")) if example else ""
        problems = [f"| {name} | {about} | {one.problem} |" + " |" * (len(columns) - 3) for one in runs if one.problem]
        lines += [*problems, *([_line(name, about, example.known, good)] if example and good else [])]
    return "\n".join(lines)


def _line(name: str, about: str, known: str, runs: Sequence[Shown]) -> str:
    values = [one.value for one in runs if one.value is not None]
    spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 else ""
    cells = [
        name,
        about,
        runs[0].metric,
        f"{statistics.fmean(values):.4f}{spread}" if values else "undefined",
        str(len(runs)),
        known or "–",
        *(_range([getattr(one, key) for one in runs], form) for key, form in (("cases", "d"), ("steps", "d"))),
    ]
    return f"| {' | '.join(cells)} |"


def _with_interval(one: Shown) -> str:
    value = "undefined" if one.value is None else f"{one.value:.3f}"
    return value if one.low is None or one.high is None else f"{value} ({one.low:.3f} to {one.high:.3f})"


def _range(numbers: Sequence[float], form: str) -> str:
    least, most = format(min(numbers), form), format(max(numbers), form)
    return least if least == most else f"{least} to {most}"


def _figure(run: Path) -> dict[str, object]:
    """The first row of the summary, which is the primary metric over all labels."""
    row = summary(run)[0]
    steps = int(plan_file.read_plan(run / "plan.yaml")["training.steps"])
    figure = {"metric": f"{row['metric']} {row['unit']}".rstrip(), "cases": row["n"], "steps": steps}
    return {**figure, **{key: row[key] for key in ("value", "low", "high")}}


def _measured(data: Path) -> Iterator[tuple[Path, float]]:
    """Each image, and the ml that its mask marks."""
    for path in sorted((data / "labels").glob("*.nii.gz")):
        mask: Image = hilum.read(path)
        yield data / "images" / path.name, np.count_nonzero(mask.data) * (mask.geometry.voxel_volume or 1) / MM3_PER_ML


def _table(table: pd.DataFrame, out: Path) -> Path:
    out.mkdir(parents=True, exist_ok=True)
    table.to_csv(out / "cases.csv", index=False)
    return out / "cases.csv"


if __name__ == "__main__":
    main()
