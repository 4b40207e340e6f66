"""`synthesise`: images drawn out of noise for rare classes, marked, and compared with those that trained a model."""

from __future__ import annotations

import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np

from isocenter import errors, keywords
from isocenter.errors import DatasetError, UsageError
from isocenter.evaluation import image_copies
from isocenter.files import file_formats
from isocenter.files.layouts import dataset_table
from isocenter.files.synthetic_marks import SYNTHETIC
from isocenter.options.images import SynthesiseOptions
from isocenter.planning import plan_file
from isocenter.prediction import predictors
from isocenter.reading import ReadingOptions, dataset_reading, verb_results
from isocenter.report import Figure, InNotebook, ReportPage, Section, Table, page_blocks, progress_tracking, wording
from isocenter.report.figures import sheets
from isocenter.report.page_blocks import Paragraph
from isocenter.runs import run_folder
from isocenter.runs.run_folder import OwnCases
from isocenter.runtime import Model, model_assembly, record_files
from isocenter.runtime.image_drawing import ImageDrawer
from isocenter.values import Array, Case, CaseRow, Cell, Estimate, Floats, Image

SCHEMA = "isocenter.synthesis"
MARKS = ("synthesis.json", "report.html")
PIXELS, FEATURES = "pixels", "features"
# Draws for each image that is wanted, as some are withheld; cases whose losses say whether the model knows who trained
# it; and drawn images in the report, of each class or mask.
MOST_DRAWS, MOST_MEMBERS, MOST_SHOWN = 2, 300, 6
# Of fewer images a network learns each by heart.
FEWEST = 20
UNMEASURED = "usefulness: not measured"
FORGED = "A drawn image is no patient. It may show what no patient has, and it belongs into no test."


@dataclass(frozen=True, eq=False)
class Subject:
    """What is drawn: a class, or what a mask marks.

    name:  the class, or the name of the mask's file; empty where nothing is asked for
    asked: the number of the class, or (*spatial) of labels on the network's grid
    likes: images of whose size and type the drawn ones are
    """

    name: str
    asked: Array
    likes: Sequence[Case]
    mask: Image | None = None


@dataclass(frozen=True, eq=False)
class KnownImages:
    """Training and test images with which drawn ones are compared, in pixels and perhaps in features.

    trained, unseen: {"pixels" or "features": (images, numbers)}
    thresholds:      {kind: distance below which a drawn image is withheld}
    """

    trained: Mapping[str, Floats]
    unseen: Mapping[str, Floats]
    thresholds: Mapping[str, float] = field(init=False)

    def __post_init__(self) -> None:
        distances = {
            kind: image_copies.nearest_distances(one, self.trained[kind])[0] for kind, one in self.unseen.items()
        }
        object.__setattr__(
            self, "thresholds", {kind: image_copies.copy_threshold(one) for kind, one in distances.items()}
        )

    def nearest(self, kind: str, numbers: Array) -> tuple[float, int]:
        """The distance of one image from the nearest training image, and the place of this one."""
        distances, places = image_copies.nearest_distances(numbers[None], self.trained[kind])
        return float(distances[0]), int(places[0])


@dataclass(frozen=True, eq=False)
class SynthesisResult(InNotebook):
    """The drawn images.

    rows:       of each: file, label (the class or the mask), number of its noise, distance from the nearest training
                image, and the case that this is
    images:     {file: image}; empty where they were written
    thresholds: {"pixels" or "features": distance below which an image counts as a copy}
    withheld:   {label: images that were nearer, and are not given}
    membership: how often the model's loss tells a training image from a test image; 0.5 is chance
    few:        {label: training images}, where these are so few that the model may have learnt them by heart
    """

    rows: Sequence[dict[str, Any]]
    images: Mapping[str, Image]
    thresholds: Mapping[str, float]
    withheld: Mapping[str, int]
    membership: Estimate
    few: Mapping[str, int]
    settings: Mapping[str, Any]
    out: Path | None = None

    def as_record(self) -> dict[str, Any]:
        """The record for `--json`, and synthesis.json."""
        record = {"thresholds": dict(self.thresholds), "withheld": dict(self.withheld), "few": dict(self.few)}
        member = {name: getattr(self.membership, name) for name in ("value", "low", "high", "n", "method")}
        rows = [{key: value for key, value in row.items() if key != "like"} for row in self.rows]
        return {"schema": SCHEMA, "version": 1, **self.settings, "images": rows, **record, "membership": member,
                "usefulness": None}  # fmt: skip

    @property
    def sentences(self) -> list[str]:
        """What was drawn and what speaks against using it."""
        copies = sum(self.withheld.values())
        drawn = len(self.rows) + copies
        lines = [
            f"{errors.count_phrase(len(self.rows), 'image')} drawn, {copies} of {drawn} withheld as near copies of "
            "training images",
            f"membership inference: AUROC {self.membership} (0.5: the model does not tell who trained it)",
        ]
        for name, count in self.few.items():
            images = errors.count_phrase(count, "training image")
            lines.append(f"{images} of {name or 'the set'}: of so few, drawn images may be copies")
        return lines

    def __repr__(self) -> str:
        place = [] if self.out is None else [str(self.out / MARKS[1])]
        return "\n".join([UNMEASURED, *self.sentences, *place])


@keywords.takes(SynthesiseOptions)
def synthesise(options: SynthesiseOptions) -> SynthesisResult:
    """Draw images with a run of --task synthesis; those that are nearly training images are withheld and drawn again.

    out:  a folder for a folder of images a class, or images/ and labels/ where a mask asks, as `train` reads them;
          synthesis.json, report.html, and dataset.csv where data are given. Every file is marked as drawn
    data: data whose rows dataset.csv has too, with their parts; drawn images train
    Raises UsageError for a run that draws nothing, and for a class or mask that it was not trained on; DatasetError
    where the run's own data are not there, with which drawn images are compared.
    """
    run = Path(options.run)
    if not (run / run_folder.MARKS[0]).is_file():
        raise UsageError("holds no run", str(run), "Give the folder of a run of --task synthesis")
    if options.label is not None and options.mask is not None:
        raise UsageError("a class and a mask are both asked for", "--mask", "Give one of them")
    drawer = ImageDrawer(predictors.load_model(run, options.device))
    own = run_folder.read_own_cases(run, plan_file.read_plan(run / run_folder.MARKS[0]))
    if options.out is None:
        return _synthesise(options, drawer, own, None)[0]
    out = Path(options.out)
    with verb_results.result_folder(out, options.overwrite, MARKS) as folder:
        result, pictures = _synthesise(options, drawer, own, folder)
        record_files.write_json(folder / MARKS[0], SCHEMA, result.as_record())
        if options.data is not None:
            _write_table(options, own, result, folder, out)
        (folder / MARKS[1]).write_text(page_blocks.render_page(_page(options, result, pictures)), encoding="utf-8")
    return replace(result, out=out)


def _synthesise(
    options: SynthesiseOptions, drawer: ImageDrawer, own: OwnCases, folder: Path | None
) -> tuple[SynthesisResult, list[Figure]]:
    trained, unseen = own.unchanged("train"), own.unchanged("test")
    if not trained:
        problem, remedy = "the images that trained the model are not there", "Put the run's data back"
        raise DatasetError(f"{problem}, so that copies cannot be told", str(options.run), remedy)
    subjects = _subjects(options, drawer, trained)
    embedding = None if options.features is None else predictors.load_model(options.features, options.device)
    known, membership = _look_at_known(drawer, trained, unseen, embedding, options.seed)
    mark = str(drawer.model.record.get("weights_sha256", "unknown"))
    rows, images, withheld, pictures = list[dict[str, Any]](), dict[str, Image](), dict[str, int](), list[Figure]()
    with progress_tracking.track_progress("drawing") as tracker:
        for place, subject in enumerate(subjects):
            first, kept = place * MOST_DRAWS * options.count, 0
            withheld[subject.name] = 0
            shown = dict[str, Image]()
            for row, image in _draw_subject(options, drawer, subject, known, embedding, first, mark):
                if row is None:
                    withheld[subject.name] += 1
                    continue
                kept += 1
                for name, one in _files(subject, image, row["number"]):
                    if folder is None:
                        images[name] = one
                    else:
                        (folder / name).parent.mkdir(parents=True, exist_ok=True)
                        file_formats.write(one, folder / name)
                    row.setdefault("file", name)
                shown |= {f"drawn {kept}": image} if kept <= MOST_SHOWN else {}
                rows.append({**row, "nearest": trained[row["nearest"]].id})
                tracker(place * options.count + kept, len(subjects) * options.count)
            if folder is not None and shown:
                pictures.append(_sheet(subject, shown))
    settings = {"model": mark, **{name: getattr(options, name) for name in ("count", "steps", "guidance", "seed")}}
    few = {one.name: len(one.likes) for one in subjects if len(one.likes) < FEWEST}
    return SynthesisResult(rows, images, known.thresholds, withheld, membership, few, settings), pictures


def _subjects(options: SynthesiseOptions, drawer: ImageDrawer, trained: Sequence[Case]) -> list[Subject]:
    """What is asked for; UsageError for a class or a mask that the model does not know."""
    names, by_mask = drawer.head.drawn_classes, bool(drawer.head.drawn_labels)
    if options.mask is not None or by_mask:
        if options.mask is None or not by_mask:
            problem = "the model draws by masks" if by_mask else "the model was trained without masks"
            remedy = (
                "Give --mask FILE" if by_mask else f"Leave it out{f', or give --label {names[0]}' if names else ''}"
            )
            raise UsageError(problem, "--mask", remedy)
        place = Path(options.mask)
        verb_results.refuse_missing(place)
        files = sorted(one for one in place.iterdir() if one.is_file()) if place.is_dir() else [place]
        masks = {one.name.partition(".")[0]: file_formats.read(one) for one in files}
        return [Subject(name, drawer.mask_on_network_grid(mask, name), trained, mask) for name, mask in masks.items()]
    if options.label is not None and options.label not in names:
        remedy = f"Choose one of {', '.join(names)}" if names else "Leave it out"
        raise UsageError(f"the model draws no {options.label!r}", "--label", remedy)
    chosen = names if options.label is None else [options.label]
    if not chosen:
        return [Subject("", np.asarray(0), trained)]
    return [
        Subject(name, np.asarray(names.index(name)), [one for one in trained if one.references.get("class") == name])
        for name in chosen
    ]


def _look_at_known(
    drawer: ImageDrawer, trained: Sequence[Case], unseen: Sequence[Case], embedding: Model | None, seed: int
) -> tuple[KnownImages, Estimate]:
    """The images with which drawn ones are compared, and what the model's losses say of who trained it."""
    grids = [[drawer.on_network_grid(case) for case in cases] for cases in (trained, unseen)]
    if not grids[1]:
        problem = "the run has no test images, whose distances say how near an image is that is no copy"
        raise DatasetError(problem, "synthesise", "Train without --all")
    numbers = {PIXELS: [np.stack([image.ravel() for image, _ in part]) for part in grids]}
    if embedding is not None:
        numbers[FEATURES] = [np.stack([_features(embedding, case) for case in cases]) for cases in (trained, unseen)]
    known = KnownImages(*({kind: pair[n] for kind, pair in numbers.items()} for n in range(2)))
    chosen = [np.unique(np.linspace(0, len(part) - 1, MOST_MEMBERS).round().astype(int)) for part in grids]
    losses = [
        drawer.losses(*(np.stack([part[n][m] for n in places]) for m in range(2)), seed=seed)
        for part, places in zip(grids, chosen, strict=True)
    ]
    people = [cases[n].patient for cases, places in zip((trained, unseen), chosen, strict=True) for n in places]
    return known, image_copies.membership_auroc(*losses, people, seed=seed)


def _features(model: Model, case: Case) -> Floats:
    seen = model.observe(case)[0].features
    if seen is None:
        raise UsageError("the network of the model gives no pooled features", "--features", "Give another model")
    return np.asarray(seen, dtype=np.float64)


def _draw_subject(
    options: SynthesiseOptions,
    drawer: ImageDrawer,
    subject: Subject,
    known: KnownImages,
    embedding: Model | None,
    first: int,
    mark: str,
) -> Iterator[tuple[dict[str, Any] | None, Image]]:
    """Images, each with its row, until there are enough or twice as many were drawn; one that is withheld has none."""
    kept, done, most = 0, 0, MOST_DRAWS * options.count
    while kept < options.count and done < most:
        numbers = range(first + done, first + min(most, done + options.count - kept))
        done += len(numbers)
        asked = np.stack([subject.asked] * len(numbers))
        settings = {"seed": options.seed, "steps": options.steps, "guidance": options.guidance}
        for number, drawn in zip(numbers, drawer.draw(asked, numbers, **settings), strict=True):
            like = model_assembly.subject_image(subject.likes[number % len(subject.likes)])[0]
            like = like if subject.mask is None else drawer.blank(subject.mask, like)
            image = drawer.as_image(drawn, like, subject.name, mark)
            seen: dict[str, Array] = {PIXELS: drawn.ravel()}
            if embedding is not None:
                seen[FEATURES] = _features(embedding, Case("drawn", "drawn", {"image": image}))
            found = {kind: known.nearest(kind, one) for kind, one in seen.items()}
            if any(distance < known.thresholds[kind] for kind, (distance, _) in found.items()):
                yield None, image
                continue
            kept += 1
            distances = {f"distance_{kind}": distance for kind, (distance, _) in found.items()}
            yield {"label": subject.name, "number": number, **distances, "nearest": found[PIXELS][1]}, image


def _files(subject: Subject, image: Image, number: int) -> Iterator[tuple[str, Image]]:
    """The files of a drawn image, its own first: in the folder of its class, or with its mask in two."""
    grid = image.geometry
    is_picture = grid.is_picture and not (grid.physical or grid.oriented) and image.dtype.kind in "iu"
    end = ".png" if is_picture else ".nii.gz"
    if subject.mask is None:
        yield f"{subject.name or 'images'}/drawn_{number:05}{end}", image
        return
    mask = subject.mask
    facts = {SYNTHETIC: image.facts[SYNTHETIC]}
    for folder, one in (("images", image), ("labels", replace(mask, geometry=mask.geometry.at_origin, facts=facts))):
        yield f"{folder}/drawn_{number:05}{end}", one


def _sheet(subject: Subject, shown: Mapping[str, Image]) -> Figure:
    """Drawn images above as many real ones."""
    real = {
        f"real {n}": model_assembly.subject_image(case)[0]
        for n, case in enumerate(subject.likes[: len(shown)], start=1)
    }
    words = "first the drawn ones, then images that trained the model"
    return sheets.contact_sheet({**shown, **real}, subject.name or "images", caption=words, columns=len(shown))


def _write_table(options: SynthesiseOptions, own: OwnCases, result: SynthesisResult, folder: Path, out: Path) -> None:
    """`dataset.csv`: the rows of the data with their parts, and the drawn images, which train."""
    data = Path(str(options.data))
    dataset = dataset_reading.open_dataset(data, ReadingOptions())
    parts = dict(dataset.splits)
    if not parts and {case.id for case in dataset} >= set(own.split["case"]):
        parts = dict(zip(own.split["case"], own.split["split"], strict=True))
    if not parts or dataset.table is None:
        remedy = "Give the data of the run, or a column split"
        raise UsageError("states no parts, so that two trainings would be tested on other cases", str(data), remedy)
    [channel] = {name for row in dataset.table.rows[:1] for name in row.images}
    rows = [replace(row, split=parts[row.name]) for row in dataset.table.rows if row.name in parts]
    base = out.absolute()
    for row in result.rows:
        path = base / row["file"]
        label = path.parent.parent / "labels" / path.name
        references = {"mask": Cell((label,))} if (folder / "labels").is_dir() else {"class": row["label"]}
        name = f"drawn_{row['label']}_{row['number']:05}"
        rows.append(CaseRow(name, {channel: Cell((path,))}, references, "train"))
    dataset_table.write_dataset_table(replace(dataset, table=replace(dataset.table, rows=tuple(rows))), folder, out)


def _page(options: SynthesiseOptions, result: SynthesisResult, pictures: Sequence[Figure]) -> ReportPage:
    kinds = list(result.thresholds)
    rows = [
        (name, sum(row["label"] == name for row in result.rows), count, *_medians(result, name))
        for name, count in result.withheld.items()
    ]
    limits = ", ".join(f"{wording.number_text(value)} in {kind}" for kind, value in result.thresholds.items())
    words = (
        f"An image nearer to a training image than {limits} is withheld: of test images one in a hundred is so near. "
        "Distances are roots of the mean squared difference, on the scale of the network (-1 to 1) or of the features."
    )
    data = options.data or "DATA"
    table = f"{os.fspath(options.out or '.')}/dataset.csv" if options.data else "dataset.csv (synthesise --with DATA)"
    commands = [
        f"isocenter train {data} --out real",
        f"isocenter train {table} --out with_drawn",
        f"isocenter evaluate real {data} --out of_real; isocenter evaluate with_drawn {data} --out of_drawn",
        "isocenter compare of_real of_drawn",
    ]
    return ReportPage(
        title="Drawn images",
        lead=f"{errors.count_phrase(len(result.rows), 'image')}, drawn by a model out of noise.",
        verdict=UNMEASURED,
        remarks={
            "Are they copies?": [f"{line}." for line in result.sentences],
            "Do they help?": ["Nobody has measured it. These commands answer; that they did not help is a result."],
        },
        sections=[
            Section("Drawn and real images", pictures),
            Section(
                "Copies",
                [
                    Table(
                        ("class or mask", "given", "withheld", *(f"median distance, {kind}" for kind in kinds)), rows
                    ),
                    Paragraph(words),
                ],
            ),
            Section("Usefulness", [Paragraph(line) for line in commands]),
        ],
        notes=[FORGED],
        facts={name: str(value) for name, value in result.settings.items()},
    )


def _medians(result: SynthesisResult, name: str) -> list[float | None]:
    """Of each kind of distance, over the given images of a class."""
    own = [row for row in result.rows if row["label"] == name]
    return [float(np.median([row[f"distance_{kind}"] for row in own])) if own else None for kind in result.thresholds]
