"""How epochs are best spent where whole pictures are classified, measured by training parts only.

    python bench/epochs.py --threads 1 --resume --out epochs
    python bench/epochs.py retina-450 --choices networks --draws 0

Each draw takes so many cases of a MedMNIST set's training part, which `plan` divides as those of any set; up to 600
others of that part are tested, and the sets' own test parts have no say. A choice trains the same cases from the same
seed for so many epochs, counted as steps, and its rate falls to zero at their end; "networks" trains others of other
seeds for 20 epochs each. As many epochs of one network and of several cost the same,
so that their last weights and their means compare what minutes bring. Shapes are the volumes of AdrenalMNIST3D, summed
along their first axis and planned as ultrasound; findings are the grades of RetinaMNIST, of which the higher ones
include the lower. Log loss and Brier score: lower is better.
"""

from __future__ import annotations

import argparse
import json
import os
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, replace
from pathlib import Path

import numpy as np
from drawn_sets import drawn
from machine import described
from recorded import commit, record
from trainings import ROOT, kept, spread

from isocenter.evaluation import classification
from isocenter.planning import PlannedTraining, plan_checks
from isocenter.runs import plan_request, training_jobs
from isocenter.runs.plan_request import PlanRequest
from isocenter.runs.training_jobs import TrainingJob
from isocenter.runtime import model_files
from isocenter.training.length import schedule
from isocenter.training.training_state import CommandClock
from isocenter.values import Case, Decision, Plan

TESTED = 600
# {name: (file, training cases that are drawn)}
SETS: Mapping[str, tuple[str, int]] = {
    "retina-450": ("retinamnist.npz", 450),
    "pneumonia-450": ("pneumoniamnist.npz", 450),
    "shapes-450": ("breastmnist.npz", 450),
    "pneumonia-300": ("pneumoniamnist.npz", 300),
    "findings-450": ("retinamnist.npz", 450),
}
# The grades of retinopathy from which each of the findings is there.
FINDINGS_FROM = (1, 2, 3)
PARTS = ("train", "val", "test")
USUAL = "20"


@dataclass(frozen=True)
class Choice:
    """How the epochs are spent: in one training, or in several of other seeds."""

    epochs: int
    networks: int = 1


CHOICES: Mapping[str, Choice] = {
    **{str(epochs): Choice(epochs) for epochs in (10, 40, 80)},
    "networks": Choice(20, networks=3),
}
METRICS = ("auroc", "accuracy", "log_loss", "brier")


@dataclass(frozen=True, eq=False)
class Scored:
    """What weights state of cases.

    probabilities: (cases, classes or findings)
    truth:         (cases, classes or findings) 1 where a class or a finding is there
    several:       findings, of which a case may have several
    """

    probabilities: np.ndarray
    truth: np.ndarray
    several: bool

    @property
    def figures(self) -> dict[str, float]:
        """{metric: value}; of findings the means over them."""
        stated, there = np.clip(self.probabilities, 1e-7, 1 - 1e-7), self.truth
        right = stated.argmax(axis=1) == there.argmax(axis=1)
        log_losses = np.log(stated) * there
        brier = ((stated - there) ** 2).sum(axis=1)
        if self.several:
            right, brier = (stated > 0.5) == there, brier / there.shape[1]
            log_losses = (log_losses + np.log(1 - stated) * (1 - there)) / there.shape[1]
        columns = range(1, 2) if there.shape[1] == 2 and not self.several else range(there.shape[1])
        return {
            "auroc": float(np.mean([classification.auroc(stated[:, n], there[:, n] == 1) for n in columns])),
            "accuracy": float(right.mean()),
            "log_loss": float(-log_losses.sum(axis=1).mean()),
            "brier": float(brier.mean()),
        }


def mean_of(members: Sequence[Scored]) -> Scored:
    """The mean of the probabilities of the same cases."""
    return replace(members[0], probabilities=np.mean([one.probabilities for one in members], axis=0))


@dataclass(frozen=True)
class Shown:
    """Weights of one training, scored on other cases of the training part.

    choice:  number of epochs, or the network
    values, validation: of `METRICS`, of the tested cases and of those that select
    seconds: of the whole training
    """

    on: str
    choice: str
    draw: int
    values: Mapping[str, float]
    validation: Mapping[str, float]
    cases: int
    steps: int
    seconds: float
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}; all without")
    parser.add_argument("--choices", nargs="+", choices=CHOICES, default=list(CHOICES))
    parser.add_argument("--draws", type=int, nargs="+", default=[0, 1, 2])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist")
    parser.add_argument("--out", type=Path, default=ROOT / "epochs")
    parser.add_argument("--threads", type=int, default=1)
    parser.add_argument("--resume", action="store_true", help="keep what has ended before")
    parser.add_argument("--record", action="store_true", help="write the table to docs/benchmarks")
    given = parser.parse_args()
    if unknown := sorted(set(given.sets) - set(SETS)):
        parser.error(f"there is no set {', '.join(unknown)}, only {', '.join(SETS)}")
    shown = [one for draw in given.draws for on in given.sets or SETS for one in _of_draw(on, draw, given)]
    text = words_of(shown)
    print(text)
    if given.record:
        words = (
            f"AUROC and log loss of up to {TESTED} cases of the training parts that were not drawn; means over draws. "
            f"On {given.threads} of {os.cpu_count()} cores. No test part has a say."
        )
        record("epochs", "Epochs of whole images", f"{words}\n\n{text}", {"runs": [asdict(one) for one in shown]})


def _of_draw(on: str, draw: int, given: argparse.Namespace) -> Iterator[Shown]:
    """Every choice on the cases of one draw, which are read and planned once."""
    made: PlannedTraining | None = None
    for choice in given.choices:
        name = f"{on}-{choice}-{draw}"
        if (before := kept(name, given)) is not None:
            yield from (Shown(**one) for one in before["shown"])
            continue
        if made is None:
            made = plan_request.plan_from_request(_data(on, draw, given), PlanRequest(threads=given.threads, seed=draw))
        shown = _trained(on, choice, draw, made, given)
        made_here = {"machine": described(), "shown": [asdict(n) for n in shown]}
        (given.out / f"{name}.json").write_text(json.dumps(made_here))
        for one in shown:
            print(_line(one), flush=True)
        yield from shown


def _data(on: str, draw: int, given: argparse.Namespace) -> Path:
    """An archive of the drawn cases and of those that are tested."""
    file, cases = SETS[on]
    source, place = given.data.resolve() / file, given.out.resolve() / "data" / f"{on}-{draw}" / file
    if on.startswith(("shapes", "findings")):
        source = given.out.resolve() / "data" / on / file
        source.parent.mkdir(parents=True, exist_ok=True)
        with np.load(given.data / ("adrenalmnist3d.npz" if on.startswith("shapes") else file)) as arrays:
            images, labels = arrays["train_images"], arrays["train_labels"]
        if on.startswith("shapes"):
            sums = (images > 0).sum(axis=1)
            images = (sums * (255 // sums.max())).astype(np.uint8)
        else:
            labels = (labels.reshape(-1, 1) >= np.array(FINDINGS_FROM)).astype(np.uint8)
        np.savez(source, train_images=images, train_labels=labels)
    return drawn(source, draw, place, cases, TESTED)


def _trained(on: str, choice: str, draw: int, made: PlannedTraining, given: argparse.Namespace) -> list[Shown]:
    """The weights at the end of a training, or of several networks, and their means."""
    chosen = CHOICES[choice]
    parts = {part: [one for one in made.examination.dataset.cases if made.parts.get(one.id) == part] for part in PARTS}
    shown, members, count = list[Shown](), list[Mapping[str, Scored]](), len(parts["train"])
    for number in range(chosen.networks):
        began = time.monotonic()
        plan = plan_of(made.plan, chosen, count, draw + 1000 * number)
        job = TrainingJob(given.out / f"{on}-{choice}-{draw}-{number}", plan, parts["train"], parts["val"], {})
        outcome = training_jobs.fit_job(job, CommandClock(began), lambda decisions: None)
        seconds = time.monotonic() - began
        members.append({part: _scored(outcome.checkpoint, parts[part]) for part in ("val", "test")})
        each = {name_of(choice, len(members)): members[-1:]}
        if len(members) > 1:
            each[f"mean of {len(members)} {choice}"] = members
        for name, own in each.items():
            both = {part: mean_of([one[part] for one in own]) for part in members[0]}
            _write(given.out / f"{on}-{name.replace(' ', '-')}-{draw}.npz", both)
            test, val = both["test"].figures, both["val"].figures
            shown.append(Shown(on, name, draw, test, val, count, outcome.steps, seconds, commit()))
    return shown


def _write(path: Path, both: Mapping[str, Scored]) -> None:
    """The probabilities and the truth of both parts, for tests of other rules without training."""
    arrays = {f"{part}_{name}": getattr(one, name) for part, one in both.items() for name in ("probabilities", "truth")}
    np.savez(path, **arrays)


def name_of(choice: str, number: int) -> str:
    """What the weights are called, so that those of one network of the usual length bear its epochs."""
    if choice == "networks":
        return USUAL if number == 1 else f"network {number}"
    return choice


def plan_of(plan: Plan, chosen: Choice, cases: int, seed: int) -> Plan:
    """The plan with so many epochs as steps, and the seed of a network."""
    because = "it is compared here"
    plan = plan.with_decision("training.epochs", Decision(chosen.epochs, because))
    settled = {
        "steps": schedule.most_steps(plan_checks.checked_settings(plan).training, cases),
        "seed": seed,
    }
    for name, value in settled.items():
        plan = plan.with_decision(f"training.{name}", Decision(value, because))
    return plan


def _scored(checkpoint: Path, cases: Sequence[Case]) -> Scored:
    model = model_files.load(checkpoint)
    each = [model.predict(case).probabilities or {} for case in cases]
    references = [case.references for case in cases]
    several = "findings" in references[0]
    truth = [
        [bool(known["findings"][name]) if several else name == known["class"] for name in stated]
        for stated, known in zip(each, references, strict=True)
    ]
    return Scored(np.array([list(stated.values()) for stated in each]), np.array(truth, dtype=float), several)


def _line(one: Shown) -> str:
    values = ", ".join(f"{name} {value:.3f}" for name, value in one.values.items())
    return f"{one.on} {one.choice} draw {one.draw}: {values}; validation {one.validation}; {one.seconds:.0f} s"


def words_of(shown: Sequence[Shown]) -> str:
    """A line of each choice, with AUROC and log loss of each set; means over draws."""
    sets = {one.on: one.cases for one in shown}
    heads = (f"{on} ({cases} train)" for on, cases in sets.items())
    lines = [f"| epochs | {' | '.join(heads)} |", "|---" * (1 + len(sets)) + "|"]
    for choice in dict.fromkeys(one.choice for one in shown):
        cells = [choice]
        for on in sets:
            own = [one for one in shown if (one.on, one.choice) == (on, choice)]
            means = (spread([one.values[metric] for one in own]) for metric in ("auroc", "log_loss"))
            cells.append(", ".join(means) if own else "")
        lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
