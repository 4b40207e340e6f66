"""What the gate refuses: images of every other kind, changed copies of its own, and good images wrongly.

    python bench/gate.py --threads 1 --minutes 3 --resume --record
    python bench/gate.py radiographs --minutes 1
    python bench/gate.py hippocampus radiographs ultrasound --all --minutes 2

With --all no case is left out for the gate, and a quarter of the patients is the set's own test part.
Each model is trained on one kind of image. It sees up to 20 images of every other kind, and copies of its own test
cases with two axes exchanged, with half of the field of view, inverted and empty, and noise. What reading or preparing
refuses counts as refused. False alarms are test cases as they are.
"""

from __future__ import annotations

import argparse
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from itertools import islice
from pathlib import Path

import numpy as np
from recorded import commit, record
from scipy import ndimage
from trainings import ROOT, add_options, keep, kept, trained

import isocenter
from isocenter.errors import IsocenterError
from isocenter.files.storage import csv_text
from isocenter.planning import plan_file
from isocenter.values import Geometry, Image

MOST, LARGEST = 20, 2**22
# {kind: its images, and the data that a model of it is trained on, if there is one}
KINDS: Mapping[str, tuple[str, str]] = {
    "hippocampus": ("hippocampus/images/*.nii.gz", "hippocampus"),
    "radiographs": ("chest_xray/*/*.jpeg", "chest_xray"),
    "ultrasound": ("ultrasound/images/*/*.png", "ultrasound/images"),
    "fundus": ("medmnist/retinamnist.npz", "medmnist/retinamnist.npz"),
    "large fundus": ("chasedb1/*.jpg", ""),
    "other radiographs": ("multimodal/images/*", ""),
    "small radiographs": ("medmnist/pneumoniamnist.npz", ""),
    "adrenal glands": ("medmnist/adrenalmnist3d.npz", ""),
    "smears": ("bccd/**/*.jpg", ""),
    "histology": ("histology/**/*.png", ""),
    "microscopy": ("dsb2018/**/*.png", ""),
    "cardiac slices": ("mri/**/*.png", ""),
    "other volumes": ("mri/**/*.nii.gz", ""),
}
# Kinds that are one to a model.
ALIKE = ({"radiographs", "other radiographs", "small radiographs"}, {"fundus", "large fundus"})


@dataclass(frozen=True)
class Shown:
    """What one model refused. refused: {what: (refused, of so many)}"""

    model: str
    problem: str = ""
    rests_on: str = ""
    refused: Mapping[str, tuple[int, int]] = field(default_factory=dict)
    commit: str = ""


def images_of(place: str, data: Path) -> Iterator[Image]:
    """The images of files of a pattern, or of an .npz, in an order that has nothing to do with their names."""
    files = sorted(data.glob(place))
    if place.endswith(".npz"):
        pixels = np.load(files[0])["test_images"]
        for one in pixels[np.random.default_rng(0).permutation(len(pixels))]:
            own = np.moveaxis(one, -1, 0) if one.ndim == 3 and one.shape[-1] == 3 else one[None]
            yield Image(np.ascontiguousarray(own), Geometry.of_pixels(own.shape[1:]))
        return
    for place_of in np.random.default_rng(0).permutation(len(files)):
        try:
            image = isocenter.read(files[place_of])
        except IsocenterError:
            continue
        if np.prod(image.shape) <= LARGEST:
            yield image


def changed(image: Image) -> Iterator[tuple[str, Image]]:
    """Copies of a good image that are none."""
    pixels, shape = image.data, image.geometry.shape
    swapped = np.swapaxes(pixels, 1, 2)
    grid = Geometry(swapped.shape[1:], image.geometry.affine, None, image.geometry.physical, image.geometry.oriented)
    yield "axes exchanged", image.with_pixels(np.ascontiguousarray(swapped), grid)
    for axis in range(len(shape)):
        half = tuple(slice(0, n // 2 if axis == number else n) for number, n in enumerate(shape))
        yield "half a field of view", image.with_pixels(pixels[(slice(None), *half)], image.geometry.crop(half))
    numbers = pixels.astype(np.float64)
    yield "inverted", image.with_pixels((numbers.max() + numbers.min() - numbers).astype(pixels.dtype))
    yield "empty", image.with_pixels(np.zeros_like(pixels))
    rng = np.random.default_rng(0)
    white = rng.normal(numbers.mean(), numbers.std(), pixels.shape)
    smooth = ndimage.gaussian_filter(white, [0, *[3.0] * (white.ndim - 1)])
    for name, noise in (("white noise", white), ("smooth noise", smooth)):
        scaled = (noise - noise.min()) / np.ptp(noise) * np.ptp(numbers) + numbers.min()
        yield name, image.with_pixels(scaled.astype(pixels.dtype))


def is_refused(model: isocenter.Model, image: Image) -> bool:
    try:
        return model.predict(image).abstained is not None
    except IsocenterError:
        return True


def own_test(run: Path, kind: str, data: Path) -> list[Image]:
    """Images of the run's test cases, as good as any."""
    if (table := dataset_of(run)).is_file():
        rows = csv_text.read_text_table(table)
        files = rows.loc[rows["split"] == "test", "image"]
        return [isocenter.read(table.parent / file.partition("#")[0]) for file in files]
    place, _ = KINDS[kind]
    if place.endswith(".npz"):
        return list(islice(images_of(place, data), 100))
    table = csv_text.read_text_table(run / "split.csv")
    tested = {Path(case).name for case in table.loc[table["split"] == "test", "case"]}
    files = [file for file in sorted(data.glob(place)) if file.name.partition(".")[0] in tested]
    return [isocenter.read(file) for file in files]


def dataset_of(run: Path) -> Path:
    """The table of the cases of a run for which no case was left out."""
    return run.with_name(f"{run.name}-data") / "dataset.csv"


def held_back(source: Path, table: Path) -> Path:
    """The table of a set with every fourth patient in its own test part, which `--all` does not train on."""
    isocenter.check(source, out=table.parent, overwrite=True)
    rows = csv_text.read_text_table(table)
    owners = rows["patient"].where(rows["patient"] != "", rows["case"])
    rows["split"] = np.where(owners.isin(sorted(set(owners))[::4]), "test", "train")
    rows.to_csv(table, index=False)
    return table


def shown(kind: str, given: argparse.Namespace) -> Shown:
    """One model, and all that it is shown."""
    if (before := kept(kind, given)) is not None:
        return Shown(**before)
    source: list[object] = [given.data.resolve() / KINDS[kind][1]]
    if given.all:
        table = dataset_of(given.out.resolve() / kind)
        source = [held_back(given.data.resolve() / KINDS[kind][1], table), "--all"]
    taken = trained(kind, source, given.seeds[0], given)
    if taken.returncode:
        return Shown(kind, f"failed with exit code {taken.returncode}: see logs/{kind}.err")
    run, data = given.out.resolve() / kind, given.data.resolve()
    model = isocenter.load(run, "cpu", threads=given.threads)
    if model.guard is None:
        return Shown(kind, "has no gate")
    counts: dict[str, tuple[int, int]] = {}

    def count(what: str, image: Image) -> None:
        refused, of = counts.get(what, (0, 0))
        counts[what] = refused + is_refused(model, image), of + 1

    own = own_test(run, kind, data)
    for image in own:
        count("false alarms", image)
    for image in own[:MOST]:
        for what, copy in changed(image):
            count(what, copy)
    alike = next((kinds for kinds in ALIKE if kind in kinds), {kind})
    for other in KINDS.keys() - alike:
        for image in islice(images_of(KINDS[other][0], data), MOST):
            count(other, image)
    one = Shown(kind, "", rests_on(run), counts, commit())
    keep(kind, one, given)
    return one


def rests_on(run: Path) -> str:
    """On what the gate rests, by its plan."""
    return plan_file.read_plan(run / "plan.yaml").decision("guard.gate").because


def words_of(all_shown: Sequence[Shown]) -> str:
    """A line for what was shown, a column for each model."""
    known = [one for one in all_shown if not one.problem]
    rows = [
        "false alarms",
        "axes exchanged",
        "half a field of view",
        "inverted",
        "empty",
        "white noise",
        "smooth noise",
        *KINDS,
    ]
    lines = [f"| refused of | {' | '.join(one.model for one in known)} |", "|---" * (1 + len(known)) + "|"]
    for what in rows:
        cells = [f"{one.refused[what][0]} of {one.refused[what][1]}" if what in one.refused else "" for one in known]
        lines.append(f"| {what} | {' | '.join(cells)} |")
    return "\n".join([*lines, "", *(f"{one.model}: {one.problem or one.rests_on}" for one in all_shown)])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    with_model = [kind for kind, (_, place) in KINDS.items() if place]
    parser.add_argument("kinds", nargs="*", metavar="KIND", help=f"{', '.join(with_model)}; all without")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    parser.add_argument("--all", action="store_true", help="train on all cases, so that none is left for the gate")
    add_options(parser, "gate", minutes=3.0, of="of each training")
    given = parser.parse_args()
    each = [shown(kind, given) for kind in given.kinds or with_model]
    text = words_of(each)
    print(text)
    if given.record:
        record("gate", "What the gate refuses", text, {"models": [asdict(one) for one in each]})


if __name__ == "__main__":
    main()
