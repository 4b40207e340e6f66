"""`synthesise`: images made out of noise for rare classes, marked, and compared with those that trained a model."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import NotRequired

import numpy as np

from hilum import errors, keywords
from hilum.errors import DatasetError, UsageError
from hilum.evaluation import image_copies
from hilum.evaluation.image_copies import KnownImages
from hilum.files import file_formats
from hilum.layouts import dataset_table
from hilum.options.images import SynthesiseOptions
from hilum.planning import plan_file
from hilum.prediction import predictors
from hilum.reading import ReadingOptions, dataset_reading, verb_results
from hilum.report import Figure, InNotebook, ReportPage, Section, page_blocks, progress_tracking, wording
from hilum.report.figures import sheets
from hilum.report.page_blocks import Paragraph
from hilum.runs import run_folder
from hilum.runs.run_folder import OwnCases
from hilum.runtime import Model, model_assembly, record_files
from hilum.runtime.image_synthesis import ImageSynthesiser
from hilum.values import Array, Case, CaseRow, Cell, Dataset, Estimate, Floats, Image
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.values.table_cells import PlainCell, TableRow
from hilum.work_state import log

MARKS = ("synthesis.json", "report.html")
# Draws for each image that is wanted, as some are withheld; cases whose losses say whether the model knows who trained
# it; synthetic images of each class or mask in the report.
MOST_DRAWS, MOST_MEMBERS, MOST_SHOWN = 2, 300, 6
UNMEASURED = "usefulness: not measured"
FORGED = "A synthetic image is no patient. It may show what no patient has, and it belongs into no test."
COPIES = (
    "An image nearer to a training image than {} is withheld: one test image in a hundred is so near. Distances are "
    "roots of the mean squared difference, of pixels on the scale of the network (-1 to 1), of features in deviations "
    "of the training images."
)
# The spaces in which copies are looked for, and the folder of images of no class.
PIXELS, FEATURES, IMAGES = "pixels", "features", "images"


@dataclass(frozen=True, eq=False)
class SynthesisSubject:
    """What is synthesised: a class, what a mask marks, or any image.

    name:  the class, that of the mask's file, or "images"
    asked: the number of the class, or (*spatial) of labels on the network's grid; any number of neither
    likes: images of whose size and type the synthetic ones are
    """

    name: str
    asked: Array
    likes: Sequence[Case]
    mask: Image | None = None

    def grid(self, number: int) -> Image:
        """An image of the size and type of the synthetic image of this number."""
        like = model_assembly.subject_image(self.likes[number % len(self.likes)])[0]
        if self.mask is None:
            return like
        pixels = np.zeros((len(like.channels), *self.mask.geometry.shape), like.dtype)
        return replace(like, pixels=pixels, geometry=self.mask.geometry)

    def files(self, image: Image, number: int) -> dict[str, Image]:
        """{file: image}: that of a synthetic image, in the folder of its class or "images", and that of its mask."""
        is_picture = image.geometry.is_picture and not image.geometry.physical and image.dtype.kind in "iu"
        name = f"synthetic_{number:05}{'.png' if is_picture else '.nii.gz'}"
        if self.mask is None:
            return {f"{self.name}/{name}": image}
        label = replace(self.mask, geometry=image.geometry, source=None, facts=image.facts)
        return {f"images/{name}": image, f"labels/{name}": label}


class SynthesisRecord(RecordHead):
    """Synthetic images, and how near they are to those that trained the model."""

    model: str
    count: int
    steps: int
    guidance: float
    seed: int
    features: NotRequired[str]
    thresholds: dict[str, float]
    withheld: dict[str, int]
    few: list[str]
    membership: TableRow
    usefulness: None
    images: list[TableRow]


SCHEMA = RecordSchema("hilum.synthesis", SynthesisRecord)


@dataclass(frozen=True, eq=False)
class SynthesisResult(InNotebook):
    """The synthetic images.

    rows:       of each: file, label (the class or the mask), number of its noise, distance from the nearest training
                image, and the case that this is; the same in features, where a model of these was given
    images:     {file: image}; empty where they were written
    thresholds: {"pixels", "features": distance below which an image counts as a copy}
    withheld:   {label: images that were nearer in either, and are not given}
    membership: how often the model's loss tells a training image from a test image of its class; 0.5 is chance
    few:        what is to be feared of classes with few training images
    """

    rows: Sequence[TableRow]
    images: Mapping[str, Image]
    thresholds: Mapping[str, float]
    withheld: Mapping[str, int]
    membership: Estimate
    settings: TableRow
    few: Sequence[str] = ()
    out: Path | None = None

    def as_record(self) -> SynthesisRecord:
        """The record for `--json`, and synthesis.json."""
        member = {name: getattr(self.membership, name) for name in ("value", "low", "high", "n", "method")}
        own = {"features": None, "membership": member, "usefulness": None, "images": self.rows, **self.settings}
        return SCHEMA.record_of(self, **own)

    @property
    def sentences(self) -> list[str]:
        """What was synthesised and what speaks against using it."""
        copies, given = sum(self.withheld.values()), errors.count_phrase(len(self.rows), "image")
        by_label = ", ".join(f"{count} of {name}" for name, count in self.withheld.items() if count)
        return [
            *self.few,
            f"{given} synthesised, {copies} withheld as near copies of training images{by_label and f' ({by_label})'}",
            f"membership inference: AUROC {self.membership} (0.5: the model does not tell who trained it)",
        ]

    def __repr__(self) -> str:
        return "\n".join([UNMEASURED, *self.sentences, *([] if self.out is None else [str(self.out / MARKS[1])])])


@keywords.takes(SynthesiseOptions)
def synthesise(options: SynthesiseOptions) -> SynthesisResult:
    """Synthesise images with a run of --task synthesis; near copies of training images are withheld and replaced.

    out:  a folder for a folder of images a class, or images/ and labels/ where a mask asks, as `train` reads them;
          synthesis.json, report.html, and dataset.csv where data are given. Every file is marked as synthetic
    data: data whose rows dataset.csv has too, with their parts; synthetic images train
    Raises UsageError for a run that synthesises nothing, and for a class or mask that it did not train on; DatasetError
    where the run's own data are not there, with which synthetic images are compared.
    """
    run = Path(options.run)
    if not (run / run_folder.MARKS[0]).is_file():
        raise UsageError("holds no run", str(run), "Give the folder of a run of --task synthesis")
    synthesiser = ImageSynthesiser(predictors.load_model(run, options.device))
    own = run_folder.read_own_cases(run, plan_file.read_plan(run / run_folder.MARKS[0]))
    dataset = None if options.data is None else _open_data(Path(options.data), own, synthesiser.model.task.name)
    if options.out is None:
        return _synthesise(options, synthesiser, own, None)[0]
    out = Path(options.out)
    with verb_results.result_folder(out, options.overwrite, MARKS) as folder:
        result, pictures = _synthesise(options, synthesiser, own, folder)
        record_files.write_json(folder / MARKS[0], SCHEMA, result.as_record())
        if dataset is not None:
            _write_table(dataset, result, folder, out)
        (folder / MARKS[1]).write_text(page_blocks.render_page(_page(options, result, pictures)), encoding="utf-8")
    return replace(result, out=out)


def _synthesise(
    options: SynthesiseOptions, synthesiser: ImageSynthesiser, own: OwnCases, folder: Path | None
) -> tuple[SynthesisResult, list[Figure]]:
    trained, unseen = own.unchanged("train"), own.unchanged("test")
    if not trained or not unseen:
        missing = "test" if trained else "training"
        remedy = "Put the run's data back, and train without --all"
        raise DatasetError(f"the run's {missing} images are not there, to tell copies by", str(options.run), remedy)
    subjects = list(_subjects(options, synthesiser, trained))
    seeing = None if options.features is None else predictors.load_model(options.features, options.device)
    known, membership = _look_at_known(synthesiser, trained, unseen, options.seed, seeing)
    mark = synthesiser.model.sha256
    rows, images, pictures = list[TableRow](), dict[str, Image](), list[Figure]()
    withheld = {one.name: 0 for one in subjects}
    with progress_tracking.track_progress("synthesising") as tracker:
        for place, subject in enumerate(subjects):
            first, shown = place * MOST_DRAWS * options.count, dict[str, Image]()
            for number, pixels in _synthesise_images(options, synthesiser, subject, first, withheld):
                image = synthesiser.as_image(pixels, subject.grid(number), mark)
                near = _nearest_cases(known, pixels, image, trained, seeing)
                if near is None:
                    withheld[subject.name] += 1
                    continue
                files = subject.files(image, number)
                rows.append({"file": next(iter(files)), "label": subject.name, "number": number, **near})
                shown |= {f"synthetic {len(shown) + 1}": image} if len(shown) < MOST_SHOWN else {}
                if folder is None:
                    images |= files
                else:
                    _write_files(files, folder)
                tracker(len(rows), len(subjects) * options.count)
            pictures += [_sheet(subject, shown)] if folder is not None and shown else []
    settings = {"model": mark, **{name: getattr(options, name) for name in ("count", "steps", "guidance", "seed")}}
    settings |= {} if seeing is None else {"features": seeing.sha256}
    thresholds = {name: one.threshold for name, one in known.items()}
    risks = {len(one.likes): image_copies.copy_risk(len(one.likes)) for one in subjects}
    few = [risk for risk in risks.values() if risk]
    for risk in few:
        log.warning("%s", risk)
    return SynthesisResult(rows, images, thresholds, withheld, membership, settings, few), pictures


def _nearest_cases(
    known: Mapping[str, KnownImages], pixels: Array, image: Image, trained: Sequence[Case], seeing: Model | None
) -> dict[str, PlainCell] | None:
    """How near a synthetic image is to training images, and to which; None for a copy."""
    near = dict[str, PlainCell]()
    for name, space in known.items():
        numbers = (
            pixels
            if seeing is None or name == PIXELS
            else _seen_features(seeing, [Case("synthetic", "", {name: image})])
        )
        distance, place = space.nearest(numbers)
        if distance < space.threshold:
            return None
        before = "" if name == PIXELS else "feature_"
        near |= {f"{before}distance": distance, f"{before}nearest": trained[place].id}
    return near


def _seen_features(model: Model, cases: Sequence[Case]) -> Array:
    """(cases, features) that a model sees in images."""
    images = (Case(case.id, case.patient, {IMAGES: model_assembly.subject_image(case)[0]}) for case in cases)
    return np.stack([model.pooled_features(case) for case in images])


def _write_files(files: Mapping[str, Image], folder: Path) -> None:
    for name, image in files.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        file_formats.write(image, folder / name)


def _subjects(
    options: SynthesiseOptions, synthesiser: ImageSynthesiser, trained: Sequence[Case]
) -> Iterator[SynthesisSubject]:
    """What is asked for; UsageError for a class or a mask that the model does not know."""
    names, labels = synthesiser.head.condition_classes, synthesiser.head.condition_labels
    if (options.mask is not None) != bool(labels):
        problem = "the model synthesises by masks" if labels else "the model was trained without masks"
        raise UsageError(problem, "--mask", "Give --mask FILE" if labels else "Leave it out")
    if options.label is not None and options.label not in names:
        remedy = f"Choose one of {', '.join(names)}" if names else "Leave it out"
        raise UsageError(f"the model synthesises no {options.label!r}", "--label", remedy)
    if options.mask is not None:
        place = Path(options.mask)
        verb_results.refuse_missing(place)
        for file in sorted(place.iterdir()) if place.is_dir() else [place]:
            name, mask = file.name.partition(".")[0], file_formats.read(file)
            yield SynthesisSubject(name, synthesiser.mask_on_network_grid(mask, str(file)), trained, mask)
        return
    if not names:
        yield SynthesisSubject(IMAGES, np.asarray(0), trained)
        return
    for name in names if options.label is None else [options.label]:
        likes = [one for one in trained if one.references.get("class") == name]
        yield SynthesisSubject(name, np.asarray(names.index(name)), likes)


def _look_at_known(
    synthesiser: ImageSynthesiser, trained: Sequence[Case], unseen: Sequence[Case], seed: int, seeing: Model | None
) -> tuple[dict[str, KnownImages], Estimate]:
    """The training images in pixels and in the features of a model that sees them, and what losses tell of training."""
    losses, people, seen, classes = list[Floats](), list[str](), list[Array](), list[str]()
    for cases in (trained, unseen):
        grid = [synthesiser.on_network_grid(case) for case in cases]
        seen.append(np.stack([image for image, _ in grid]))
        chosen = np.unique(np.linspace(0, len(cases) - 1, MOST_MEMBERS).round().astype(int))
        losses.append(synthesiser.losses([grid[n][0] for n in chosen], [grid[n][1] for n in chosen], seed=seed))
        people += [cases[n].patient for n in chosen]
        classes += ["" if np.ndim(grid[n][1]) else str(grid[n][1]) for n in chosen]
    known = {PIXELS: KnownImages.from_images(*seen)}
    if seeing is not None:
        features = [_seen_features(seeing, cases) for cases in (trained, unseen)]
        known[FEATURES] = KnownImages.from_images(*features, is_scaled=True)
    return known, image_copies.membership_auroc(losses[0], losses[1], people, classes, seed=seed)


def _synthesise_images(
    options: SynthesiseOptions,
    synthesiser: ImageSynthesiser,
    subject: SynthesisSubject,
    first: int,
    withheld: Mapping[str, int],
) -> Iterator[tuple[int, Array]]:
    """(number, image) after another, until enough were not withheld or twice as many as are wanted were made."""
    done = 0
    while (left := options.count + withheld[subject.name] - done) > 0 and done < MOST_DRAWS * options.count:
        numbers = range(first + done, first + min(MOST_DRAWS * options.count, done + left))
        done += len(numbers)
        made = synthesiser.synthesise(
            subject.asked, numbers, seed=options.seed, steps=options.steps, guidance=options.guidance
        )
        yield from zip(numbers, made, strict=True)


def _sheet(subject: SynthesisSubject, shown: Mapping[str, Image]) -> Figure:
    """Synthetic images above as many real ones."""
    cases = enumerate(subject.likes[: len(shown)], start=1)
    real = {f"real {n}": model_assembly.subject_image(case)[0] for n, case in cases}
    words = "First the synthetic ones, then images that trained the model."
    return sheets.contact_sheet({**shown, **real}, subject.name, caption=words, columns=len(shown))


def _open_data(data: Path, own: OwnCases, task: str) -> Dataset:
    """The data that the synthetic images join, with the part of each case; UsageError where nobody states the parts."""
    dataset = dataset_reading.open_for_task(task, [data], ReadingOptions())
    parts = dataset.splits
    if not parts and {case.id for case in dataset} >= set(own.split["case"]):
        parts = dict(zip(own.split["case"], own.split["split"], strict=True))
    if not parts or dataset.table is None:
        remedy = "Give the data of the run, or a column split"
        raise UsageError("states no parts, so that two trainings would be tested on other cases", str(data), remedy)
    return replace(dataset, splits=parts)


def _write_table(dataset: Dataset, result: SynthesisResult, folder: Path, out: Path) -> None:
    """`dataset.csv`: the rows of the data with their parts, and the synthetic images, which train."""
    assert dataset.table is not None  # noqa: S101 - it was refused without
    parts, channel = dataset.splits, next(iter(dataset.table.rows[0].images))
    rows = [replace(row, split=parts[row.name]) for row in dataset.table.rows if row.name in parts]
    for row in result.rows:
        path = out.absolute() / str(row["file"])
        mask = Cell((path.parent.parent / "labels" / path.name,))
        of_class = {} if row["label"] == IMAGES else {"class": row["label"]}
        known = {"mask": mask} if (folder / "labels").is_dir() else of_class
        rows.append(CaseRow(f"synthetic_{row['number']:05}", {channel: Cell((path,))}, known, "train"))
    dataset_table.write_dataset_table(replace(dataset, table=replace(dataset.table, rows=tuple(rows))), folder, out)


def _page(options: SynthesiseOptions, result: SynthesisResult, pictures: Sequence[Figure]) -> ReportPage:
    data = options.data or "DATA"
    table = f"{options.out}/dataset.csv" if options.data else "dataset.csv (of synthesise --with DATA)"
    commands = [
        f"hilum train {data} --out real",
        f"hilum train {table} --out with_synthetic",
        f"hilum evaluate real {data} --out of_real",
        f"hilum evaluate with_synthetic {data} --out of_synthetic",
        "hilum compare of_real of_synthetic",
    ]
    nearer = " or ".join(f"{wording.number_text(one)} in {name}" for name, one in result.thresholds.items())
    return ReportPage(
        title="Synthetic images",
        verdict=UNMEASURED,
        remarks={
            "Are they copies?": [f"{line}." for line in result.sentences],
            "Do they help?": ["Nobody has measured it; the commands below do. That they did not help is a result."],
        },
        sections=[
            Section("Synthetic and real images", pictures),
            Section("Copies", [Paragraph(COPIES.format(nearer))]),
            Section("Usefulness", [Paragraph(line) for line in commands]),
        ],
        notes=[FORGED],
        facts={name: str(value) for name, value in result.settings.items()},
    )
