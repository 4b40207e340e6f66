"""Everything that `hilum networks` advertises, tried: `make test-all`, or `python bench/networks_matrix.py`.

    python bench/networks_matrix.py [NAME...] [--resume] [--minutes 25] [--out docs/networks-matrix.md]

Which families there are, in how many axes, and what they answer is asked of the catalogue; who takes covariates is
found by building with them. Each combination is built with the size that a plan gives it for a small image, learns two
images by heart with the loss of its task or its own, is exported to ONNX as a package is, and is built once more from
the copy of its file that travels with a package. With --resume what was found with the same files and libraries stays;
after so many --minutes nothing more is begun, and the page names what was not tried.
Families that are named have their rows on the page exchanged; the others stay.
The exit is 1 where something advertised does not hold; that a network cannot be exported is said, and is no failure.
"""

from __future__ import annotations

import argparse
import hashlib
import importlib
import itertools
import json
import math
import platform
import re
import sys
import tempfile
import time
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from functools import cache, partial
from importlib.metadata import version
from pathlib import Path
from typing import Any

import numpy as np
import torch

from hilum.errors import HilumError
from hilum.networks import factory, member_catalogue
from hilum.networks.member_catalogue import REFERENCE
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.model_schema import OnnxRecord
from hilum.runtime.package import bag_export, onnx_export, package_contents, script_sources
from hilum.runtime.preprocessing.slide_tiles import Tiles
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import Task
from hilum.tasks.classification.question import Classification
from hilum.tasks.detection.question import Detection
from hilum.tasks.instances.question import InstanceSegmentation
from hilum.tasks.segmentation.question import Segmentation
from hilum.training.data import target_kinds
from hilum.training.data.target_kinds import KINDS
from hilum.training.step import batch_loss
from hilum.training.step.batch_loss import ADDED
from hilum.transforms.intensity import Normalisation
from hilum.values import Label
from hilum.values.prediction import Boxes

ROOT = Path(__file__).resolve().parent.parent
KEPT = ROOT / ".bench" / "networks_matrix.json"
# Voxels per axis of the first image that is tried; doubled until the family takes it, up to the catalogue's own.
SIDES = {1: 64, 2: 32, 3: 16}
LIBRARIES = ("torch", "torchvision", "timm", "monai", "onnx", "onnxruntime")
# Numbers beside each image, where a family takes them.
CONTEXT = 3
# A family has learnt two images by heart when its loss is below this share of the first, within so many steps:
# the slowest, V-Net in volumes, takes 234.
SHARE, STEPS = 0.25, 400
RATE = 2e-3
NOT_TRIED = "## Not tried"
WORDS = {"boxes": "boxes", "dense": "every voxel", "objects": "objects", "vector": "the image"}


@dataclass(frozen=True)
class Combination:
    """A family in so many axes with one kind of head, with numbers beside the image or without."""

    name: str
    axes: int
    head: str
    context: int = 0

    @property
    def key(self) -> str:
        return f"{self.name} {self.axes} {self.head} {self.context}"


@dataclass
class Outcome:
    """What became of a combination: each step in words, "yes" where nothing else is to be said.

    failed: what was advertised and does not hold
    """

    image: str = ""
    parameters: int = 0
    forward: str = ""
    backward: str = ""
    overfits: str = ""
    onnx: str = ""
    copied: str = ""
    failed: list[str] = field(default_factory=list)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("names", nargs="*", help="families; all of them if none is named")
    parser.add_argument("--resume", action="store_true", help="keep what was found with the same files")
    parser.add_argument("--minutes", type=float, default=math.inf, help="begin nothing more after so long")
    parser.add_argument("--out", type=Path, default=ROOT / "docs" / "networks-matrix.md")
    given = parser.parse_args()
    torch.set_num_threads(1)
    everything = list(combinations(given.names or factory.family_names()))
    outcomes = dict(tried(everything, resume=given.resume, minutes=given.minutes))
    made = Lines.from_outcomes(outcomes, [one for one in everything if one not in outcomes])
    if given.names:
        made = Lines.from_page(given.out.read_text(encoding="utf-8")).exchange(made, given.names)
    given.out.write_text(page(made), encoding="utf-8")
    print(f"wrote {given.out}")
    wrong = [f"{one.key}: {reason}" for one, outcome in outcomes.items() for reason in outcome.failed]
    print(f"{len(outcomes)} of {len(everything)} combinations, {len(wrong)} failures", *wrong, sep="\n")
    sys.exit(bool(wrong))


def tried(everything: Sequence[Combination], *, resume: bool, minutes: float) -> Iterator[tuple[Combination, Outcome]]:
    """Each combination and its outcome, which is kept at once; when the time is over those alone that are known."""
    now, until = made_with(), time.monotonic() + 60 * minutes
    kept = json.loads(KEPT.read_text()) if resume and KEPT.is_file() else {}
    found = kept["found"] if kept.get("made_with") == now else {}
    for one in everything:
        began = time.monotonic()
        if one.key not in found and began > until:
            continue
        if one.key not in found:
            found[one.key] = asdict(outcome(one))
            KEPT.parent.mkdir(exist_ok=True)
            KEPT.write_text(json.dumps({"made_with": now, "found": found}))
            words = found[one.key]["failed"] or f"{found[one.key]['overfits']}, ONNX {found[one.key]['onnx']}"
            print(f"{one.key}: {words} ({time.monotonic() - began:.0f} s)", flush=True)
        yield one, Outcome(**found[one.key])


def made_with() -> str:
    """SHA-256 of what an outcome depends on: the files of the networks, this one, Python and the libraries."""
    digest = hashlib.sha256(repr([platform.python_version(), *map(version, LIBRARIES)]).encode())
    for path in [Path(__file__), *sorted(factory.builder_source("unet")[0].parent.glob("*.py"))]:
        digest.update(path.name.encode() + b"\0" + path.read_bytes())
    return digest.hexdigest()


def combinations(names: Iterable[str]) -> Iterator[Combination]:
    """What the catalogue lists of these families, and the same with numbers beside the image where it can be built."""
    for member in factory.family_members(names):
        for head in member.tasks:
            yield Combination(member.name, member.axes, head)
            informed = Combination(member.name, member.axes, head, CONTEXT)
            if takes_context(informed, [SIDES[member.axes]] * member.axes):
                yield informed


def takes_context(one: Combination, patch: Sequence[int]) -> bool:
    try:
        with torch.device("meta"):
            _built(one, patch)
    except HilumError as error:
        return "covariates" not in str(error)  # a family says why it takes none, or none with such an output
    return True


def outcome(one: Combination) -> Outcome:
    """Every step, one after the other; what fails ends them and is said."""
    entry = Outcome()
    try:
        _try(one, entry)
    except Exception as error:  # torch, the libraries and the families raise what they like: that is what is looked for
        entry.failed.append(f"{type(error).__name__}: {str(error).strip().partition(chr(10))[0][:200]}")
    return entry


def _try(one: Combination, entry: Outcome) -> None:
    torch.manual_seed(0)
    patch = _smallest(one)
    network, task = _built(one, patch), task_of(one)
    images, context, targets = scene(one.axes, patch[0], one.head, one.context)
    entry.image, entry.parameters = (
        " x ".join(map(str, patch)),
        sum(weight.numel() for weight in network.parameters()),
    )
    entry.forward = _forward(network.eval(), images, context, task, entry)
    losses = _losses(one.name, network.train(), task, images, context, targets, entry)
    reached = next((step for step, loss in enumerate(losses) if loss < SHARE * losses[0]), None)
    left = losses[-1] / losses[0]
    entry.overfits = f"in {reached} steps" if reached else f"{left:.2f} after {len(losses) - 1} steps"
    if reached is None:
        entry.failed.append(f"the loss fell to {left:.2f} only" if math.isfinite(left) else "the loss is not finite")
    entry.copied = _copied(one, network.eval(), images, context, patch)
    record = _onnx_record(one, network, task, patch)
    exported = record["exported"]
    entry.onnx = f"{record['largest_difference']:.1e}" if exported else f"no: {_line(record['because'])}"


def _onnx_record(one: Combination, network: torch.nn.Module, task: Task, patch: Sequence[int]) -> OnnxRecord:
    """What a package says of its ONNX file; a network of bags becomes two graphs there."""
    family = factory.family_of(one.name)
    with tempfile.TemporaryDirectory() as folder:
        if family.pools:
            (Path(folder) / "models").mkdir()
            return bag_export.write_halves(_model_of_bags(one, network, task, patch), [network], Path(folder))
        return onnx_export.write_onnx(
            package_contents.every_head_network(task, [network]).eval(),
            (1, *patch),
            Path(folder) / "network.onnx",
            context=one.context,
            refused=family.without_onnx,
        )


def _model_of_bags(one: Combination, network: torch.nn.Module, task: Task, patch: Sequence[int]) -> Model:
    """The network with all that its export asks of a model: how many channels and voxels a tile has."""
    tiles = Tiles(patch[1], 0.0005, patch[0])
    preprocessing = Preprocessing(one.axes, ("0",), (Normalisation("window", -10, 10),), tiles=tiles)
    architecture = {"name": one.name, "channels": 1, "spatial_dims": one.axes}
    return Model(task, preprocessing, Inference(tuple(patch), 0.0), Networks(TorchNetwork(network), architecture))


def task_of(one: Combination) -> Task:
    """The kind of problem whose head this is."""
    made: Mapping[str, Callable[[], Any]] = {
        "boxes": lambda: Detection(("bright", "dark"), one.axes, float(SIDES[one.axes] // 4)),
        "dense": lambda: Segmentation((Label(1, "bright"), Label(2, "dark"))),
        "objects": lambda: InstanceSegmentation((1.0,) * one.axes, 4.0),
        "vector": lambda: Classification(("bright", "dark")),
    }
    return made[one.head]()


def scene(
    axes: int, side: int, head: str, context_size: int
) -> tuple[torch.Tensor, tuple[torch.Tensor, ...], torch.Tensor]:
    """Two images, one with two bright balls in noise and one with two dark ones, the numbers beside them, the truth.

    Balls are a quarter of the side in diameter at least 6 voxels, and do not touch.
    """
    rng, radius = np.random.default_rng(0), side // 8 + 1
    images = rng.normal(0, 0.1, (2, 1, *[side] * axes)).astype(np.float32)
    numbers, boxes = np.zeros((2, *[side] * axes), dtype=np.int64), []
    for n, sign in enumerate((1, -1)):
        for ball, centre in enumerate((side // 4 + n, side - side // 4 - n), start=1):
            away = np.sqrt(sum((grid + 0.5 - centre) ** 2 for grid in np.indices([side] * axes)))
            images[n, 0][away < radius] += 2 * sign
            numbers[n][away < radius] = ball
            boxes.append([n, *[centre - radius] * axes, *[centre + radius] * axes])
    truths = {
        "boxes": np.array(boxes, dtype=np.float32).reshape(2, 2, -1),
        "dense": (numbers > 0) * np.array([1, 2]).reshape(2, *[1] * axes),
        "objects": numbers,
        "vector": np.array([0, 1]),
    }
    context = (torch.from_numpy(rng.normal(size=(2, context_size)).astype(np.float32)),) if context_size else ()
    return torch.from_numpy(images), context, torch.from_numpy(truths[head])


def _built(one: Combination, patch: Sequence[int]) -> torch.nn.Module:
    heads = task_of(one).heads
    size, _, _ = factory.size_for(one.name, patch, member_catalogue.plan_strides(patch), "cpu", heads)
    return factory.build(one.name, 1, one.axes, heads, size, one.context)


def _smallest(one: Combination) -> list[int]:
    """The smallest of the images that are tried for which the family can be built and answers in training."""
    side = SIDES[one.axes]
    while True:
        try:
            network = _built(one, patch := [side] * one.axes)
            images, context, targets = scene(one.axes, side, one.head, one.context)
            _answers(one.name, network.train(), images, context, targets)
            return patch
        except (HilumError, RuntimeError, ValueError):
            if (side := 2 * side) > max(REFERENCE[one.axes]):
                raise


def _answers(name: str, network: Any, images: Any, context: Sequence[Any], targets: Any) -> dict[str, torch.Tensor]:
    truth = {"targets": targets} if factory.family_of(name).sees_targets else {}
    found: dict[str, torch.Tensor] = network(images, *context, **truth)
    return found


def _forward(network: Any, images: Any, context: Sequence[Any], task: Task, entry: Outcome) -> str:
    """Whether each head answers in its shape, with numbers."""
    with torch.inference_mode():
        outputs = network(images, *context)
    for name, head in task.heads.items():
        count, places = getattr(head, "channels", None), images.shape[2:]
        wanted = (2, count, *places) if count else (2, head.size)  # type: ignore[attr-defined]
        if tuple(outputs[name].shape) != wanted or not outputs[name].isfinite().all():
            entry.failed.append(f"{name} is {tuple(outputs[name].shape)} in place of {wanted}, or not finite")
    return "no" if entry.failed else "yes"


def _losses(
    name: str, network: Any, task: Task, images: Any, context: Sequence[Any], targets: Any, entry: Outcome
) -> Sequence[float]:
    """Of each step on the same two images, until it is small enough; the first step's gradients are looked at."""
    optimiser = torch.optim.AdamW(network.parameters(), lr=RATE)
    kind = (
        KINDS[Boxes] if targets.is_floating_point() else target_kinds.kind_for_axes(targets.ndim - 1, images.ndim - 2)
    )
    judge = partial(batch_loss.deeply_supervised, task, coarse=partial(kind.coarse, spatial=tuple(images.shape[2:])))
    if (own := getattr(network, "loss", None)) is not None:
        judge = partial(own, heads=task.heads)
    losses: list[float] = []
    for step in range(STEPS + 1):
        outputs = dict(_answers(name, network, images, context, targets))
        added = outputs.pop(ADDED, torch.zeros(())).mean()
        loss = judge(outputs, targets) + added
        losses.append(float(loss.detach()))
        if losses[-1] < SHARE * losses[0] or not math.isfinite(losses[-1]):
            break
        optimiser.zero_grad()
        loss.backward()
        if step == 0:
            entry.backward = _gradients(network, entry)
        torch.nn.utils.clip_grad_norm_(network.parameters(), 5.0)
        optimiser.step()
    return losses


def _gradients(network: torch.nn.Module, entry: Outcome) -> str:
    grads = [weight.grad for weight in network.parameters() if weight.grad is not None]
    if grads and all(grad.isfinite().all() for grad in grads) and any(grad.any() for grad in grads):
        return "yes"
    entry.failed.append("gradients are not finite, or all zero")
    return "no"


def _copied(one: Combination, network: torch.nn.Module, images: Any, context: Sequence[Any], patch: Any) -> str:
    """Whether the copy of the file that travels with a package, with these weights, answers as the network does."""
    again = _again(one, patch)
    again.load_state_dict(network.state_dict())
    with torch.inference_mode():
        pairs = [(found(images, *context)) for found in (network.eval(), again.eval())]
    if all(torch.equal(pairs[0][name], pairs[1][name]) for name in pairs[0]):
        return "yes"
    raise ValueError("the copy of its file answers otherwise")


def _again(one: Combination, patch: Sequence[int]) -> torch.nn.Module:
    heads = task_of(one).heads
    size, _, _ = factory.size_for(one.name, patch, member_catalogue.plan_strides(patch), "cpu", heads)
    given = {**factory.head_arguments(one.name, heads), **factory.family_settings(one.name, heads, size, one.context)}
    made: torch.nn.Module = _travelled(one.name)(1, one.axes, **given)
    return made


numbered = itertools.count()


@cache
def _travelled(name: str) -> Callable[..., torch.nn.Module]:
    """The function that builds, from a copy of the family's file and of what it needs of ours."""
    path, function = factory.builder_source(name)
    module = f"hilum.networks.{path.stem}"
    sources = script_sources.collect_sources(
        {module: (function,)}, {}, {module: path.read_text(encoding="utf-8")}, "a copy"
    )
    folder, package = Path(tempfile.mkdtemp()), f"travelled{next(numbered)}"
    for file, text in sources.texts.items():
        (folder / package / file).parent.mkdir(parents=True, exist_ok=True)
        (folder / package / file).write_text(text, encoding="utf-8")
    sys.path.insert(0, str(folder))
    try:
        built = getattr(importlib.import_module(f"{package}.{sources.places[module]}"), function)
    finally:
        sys.path.remove(str(folder))
    return built  # type: ignore[no-any-return]


@dataclass(frozen=True)
class Lines:
    """What the page says, line by line: a row for a family in the numbers of axes in which it answers for the same."""

    rows: Sequence[str]
    wrong: Sequence[str]
    untried: Sequence[str]

    @classmethod
    def from_outcomes(cls, outcomes: Mapping[Combination, Outcome], untried: Sequence[Combination] = ()) -> Lines:
        rows = [_row(own, {one: outcomes[one] for one in own}) for own in _alike(outcomes)]
        wrong = [f"- `{one.key}`: {reason}" for one, entry in outcomes.items() for reason in entry.failed]
        return cls(rows, wrong, [f"- `{one.key}`" for one in untried])

    @classmethod
    def from_page(cls, text: str) -> Lines:
        told, _, untried = text.partition(NOT_TRIED)
        rows = [line for line in told.splitlines() if line.startswith("| `")]
        wrong = [line for line in told.splitlines() if line.startswith("- `")]
        return cls(rows, wrong, [line for line in untried.splitlines() if line.startswith("- `")])

    def exchange(self, newer: Lines, names: Sequence[str]) -> Lines:
        """These lines, those about the named families exchanged for newer ones."""
        return Lines(
            exchange_lines(self.rows, newer.rows, names),
            exchange_lines(self.wrong, newer.wrong, names),
            exchange_lines(self.untried, newer.untried, names),
        )


def exchange_lines(lines: Sequence[str], newer: Sequence[str], names: Sequence[str]) -> list[str]:
    """The lines that are not about the named families, and the newer ones, by family."""
    return sorted([*(line for line in lines if family_in(line) not in names), *newer], key=family_in)


def family_in(line: str) -> str:
    """The family that a line of the page is about."""
    return line.split("`")[1].split(maxsplit=1)[0]


def page(lines: Lines) -> str:
    """The whole page."""
    families = {family_in(row) for row in lines.rows}
    text = [
        "# Every network, in every way that it is advertised",
        "",
        "Written by `make test-all`, which tries each line of `hilum networks` with each kind of output, and with "
        f"{CONTEXT} covariates where the family takes them; `make matrix NAME=unet` tries one and exchanges its rows. "
        "Sizes are those of a plan for a small image on a processor. Of each combination every output has its shape "
        "and is finite, gradients are finite, the loss "
        f"of two images falls below {SHARE:g} of the first (*steps*), and the copy of its file that travels with a "
        "package answers the same to the bit, unless it stands among the failures. *ONNX*: the largest difference "
        "between ONNX Runtime and torch, as a share of the largest output, on batches of one and two, of bags on one "
        "to 70 tiles; or why there is no such file. Bags have three axes: tiles, rows and columns.",
        "",
        f"{len(families)} families"
        + (f"; {len(lines.untried)} combinations were not tried and stand below." if lines.untried else "."),
        "",
        "| family | axes | answers for | covariates | weights | steps | ONNX |",
        "|---|---|---|---|---|---|---|",
        *lines.rows,
        "",
        *(["## Failures", "", *lines.wrong] if lines.wrong else ["No failures."]),
    ]
    if lines.untried:
        text += ["", NOT_TRIED, "", "Family, axes, kind of output, number of covariates:", "", *lines.untried]
    return "\n".join(text) + "\n"


def _alike(outcomes: Mapping[Combination, Outcome]) -> Iterator[list[Combination]]:
    """The combinations of a family in the numbers of axes that answer for the same, with or without ONNX."""
    families: dict[str, dict[int, list[Combination]]] = {}
    for one in outcomes:
        families.setdefault(one.name, {}).setdefault(one.axes, []).append(one)
    for by_axes in families.values():
        rows: dict[frozenset[tuple[str, int, str]], list[Combination]] = {}
        for own in by_axes.values():
            same = frozenset((one.head, one.context, _why_without_onnx(outcomes[one])) for one in own)
            rows.setdefault(same, []).extend(own)
        yield from rows.values()


def _row(own: Sequence[Combination], outcomes: Mapping[Combination, Outcome]) -> str:
    informed = {one.head for one in own if one.context}
    heads = sorted({one.head for one in own}, key=list(WORDS).index)
    covariates = "yes" if informed == set(heads) else ", ".join(WORDS[head] for head in heads if head in informed)
    weights = [entry.parameters for entry in outcomes.values()]
    steps = [int(match[1]) for entry in outcomes.values() if (match := re.match(r"in (\d+) steps", entry.overfits))]
    reasons = sorted({why for entry in outcomes.values() if (why := _why_without_onnx(entry))})
    differences = [entry.onnx for entry in outcomes.values() if entry.onnx and not _why_without_onnx(entry)]
    largest = max(differences, key=float, default="")
    cells = [
        f"`{own[0].name}`",
        ", ".join(str(axes) for axes in sorted({one.axes for one in own})),
        ", ".join(WORDS[head] for head in heads),
        covariates,
        _span(weights),
        _span(steps),
        "; ".join(filter(None, (largest, *reasons))).replace("|", "/"),
    ]
    return f"| {' | '.join(cell or '-' for cell in cells)} |"


def _why_without_onnx(entry: Outcome) -> str:
    return entry.onnx if entry.onnx.startswith("no") else ""


def _span(numbers: Sequence[int]) -> str:
    low, high = min(numbers, default=0), max(numbers, default=0)
    return f"{low:,}" if low == high else f"{low:,} to {high:,}"


def _line(text: str) -> str:
    return " ".join(text.split())[:160]


if __name__ == "__main__":
    warnings.simplefilter("ignore")
    main()
