"""Every family of network on one set of pictures and one of volumes, each trained for as many minutes.

    python bench/families.py --minutes 3 --seeds 0 --core 1 --threads 1
    python bench/families.py densenet vit --sets pneumonia --minutes 10 --seeds 0 1 2 --out families --resume --record

Everything but the network is the plan's own, the batch too: what a family does best with was not looked for. Minutes
are those of the whole command. Weights and multiplications of one image are those of the network that was trained, and
`predict` is the median time of a case of the test part, in torch, on the same threads. A family that cannot answer the
question, or has no network of so many axes, is left out; what failed is said.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import time
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, summary, trained

import isocenter

HERE = Path(__file__).resolve().parent
# Cases that a finished model predicts to be timed.
TIMED = 5
# A training with less than this share of the steps of another seed of its family had not as much of the machine.
SLOWED = 0.75

# Metrics as the reasons of a plan spell them.
SPELLED = {"dice": "Dice", "auroc": "AUROC"}


@dataclass(frozen=True)
class Set:
    """Data on which families are trained.

    answers: what a family must be able to say, as `isocenter networks` has it
    """

    data: str
    axes: int
    answers: str
    text: str
    flags: tuple[str, ...] = ()


# Families of clips and of several images, of which these sets have none.
OTHERS = ("clip_", "fusion")
SETS: Mapping[str, Set] = {
    "pneumonia": Set("medmnist/pneumoniamnist.npz", 2, "vector", "PneumoniaMNIST, its own split"),
    "adrenal": Set("medmnist/adrenalmnist3d.npz", 3, "vector", "AdrenalMNIST3D, its own split"),
    "hippocampus": Set(
        "hippocampus", 3, "dense", "hippocampus, two structures", ("--labels", "1=anterior,2=posterior")
    ),
}


@dataclass(frozen=True)
class Shown:
    """One training of a family on a set.

    predict: ms a case; memory: GiB at the most, of all processes
    """

    family: str
    on: str
    seed: int
    problem: str = ""
    metric: str = ""
    value: float | None = None
    low: float | None = None
    high: float | None = None
    steps: int = 0
    parameters: int = 0
    multiply_adds: int = 0
    predict: float = 0.0
    minutes: float = 0.0
    memory: float = 0.0
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("names", nargs="*", metavar="FAMILY", help="all of still, single images without")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=list(SETS))
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data")
    add_options(parser, "families", minutes=10.0, of="of each training")
    given = parser.parse_args()
    members = isocenter.describe_networks().members
    if unknown := sorted(set(given.names) - {one.name for one in members}):
        parser.error(f"there is no family {', '.join(unknown)}")
    shown = [
        _shown(one.name, on, seed, given)
        for seed in given.seeds  # all families once before any a second time
        for on in given.sets
        for one in members
        if one.axes == SETS[on].axes and SETS[on].answers in one.tasks
        if (one.name in given.names if given.names else not one.name.startswith(OTHERS))
    ]
    for on in given.sets:
        of_set = [one for one in shown if one.on == on]
        print(f"\n{SETS[on].text}\n\n{_words(of_set)}")
        if given.record:
            _record(on, of_set, given)
    sys.exit(any(one.problem for one in shown))


def _record(on: str, shown: Sequence[Shown], given: argparse.Namespace) -> None:
    """The set's own section of the page, and the figures from which plans take their reasons."""
    text = (
        f"{marked(SETS[on].data, SETS[on].text)}: {next(one.metric for one in shown if one.metric)}. "
        f"Trainings of {given.minutes:g} minutes, "
        f"from raw files to the report, on {given.threads} of {os.cpu_count()} cores, everything but the network as "
        f"planned. {_slowed(shown)}Each seed with its interval is in the JSON file."
    )
    title = f"Families of network on {SETS[on].text.split(',')[0]}"
    record(f"networks_{on}", title, f"{text}\n\n{_words(shown)}", {"runs": [asdict(one) for one in shown]})
    _keep(_measured(on, shown, given))


def _slowed(shown: Sequence[Shown]) -> str:
    """How many trainings made so few steps that their minutes are not those of the other seeds."""
    most = {one.family: max(other.steps for other in shown if other.family == one.family) for one in shown}
    slowed = sum(not one.problem and one.steps < SLOWED * most[one.family] for one in shown)
    share = f"{100 * SLOWED:.0f} %"
    return (
        f"Equal minutes, unequal work: {slowed} of {len(shown)} trainings made fewer than {share} of the most steps of "
        "their family. "
        if slowed
        else ""
    )


def _measured(on: str, shown: Sequence[Shown], given: argparse.Namespace) -> dict[str, Any]:
    """What a plan says of families: of each the means over seeds of its figure and of the ends of its interval."""
    found: dict[str, list[float]] = {}
    for name in dict.fromkeys(one.family for one in shown):
        ends = [(one.value, one.low, one.high) for one in shown if one.family == name]
        whole = [(value, low, high) for value, low, high in ends if None not in (value, low, high)]
        if len(whole) == len(given.seeds):
            found[name] = [round(statistics.fmean(each), 4) for each in zip(*whole, strict=True)]
    example, metric = SETS[on], next(one.metric for one in shown if one.metric)
    trained = {"minutes": given.minutes, "cores": given.threads, "seeds": len(given.seeds)}
    return {
        "on": example.text.split(",")[0],
        "answers": example.answers,
        "axes": example.axes,
        "metric": SPELLED.get(metric, metric),
        **trained,
        "results": found,
    }


def _keep(measured: Mapping[str, Any]) -> None:
    """Into the file from which plans take their reasons, in place of what it held of the same set."""
    from isocenter.networks.member_catalogue import FILE  # after the arguments, like torch

    kept = json.loads(FILE.read_text(encoding="utf-8"))["measured"]
    others = [one for one in kept if one["on"] != measured["on"]]
    FILE.write_text(json.dumps({"measured": [*others, measured]}, indent=1) + "\n", encoding="utf-8")


def _shown(family: str, on: str, seed: int, given: argparse.Namespace) -> Shown:
    example, name = SETS[on], f"{family}-{on}-{seed}"
    data, out = given.data.resolve() / example.data, given.out.resolve() / name
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    found = trained(name, [data, *example.flags, "--set", f"network.name={family}"], seed, given)
    taken = {"minutes": found.seconds / 60, "memory": found.peak_mib / 1024, "commit": commit()}
    if found.returncode:
        return Shown(family, on, seed, f"failed with exit code {found.returncode}: see logs/{name}.err", **taken)
    rows = summary(out)
    first = {key: rows[0][key] for key in ("metric", "value", "low", "high")}
    shown = Shown(family, on, seed, **first, **_size(out, data, given), **taken)
    keep(name, shown, given)
    return shown


def _size(run: Path, data: Path, given: argparse.Namespace) -> dict[str, Any]:
    """Weights, multiplications of an image and ms a case, in a process of its own on the same cores."""
    cores = ",".join(str(given.core + n) for n in range(given.threads))
    words = [sys.executable, str(HERE / "families.py"), "--measure", str(run), str(data), str(given.threads)]
    done = subprocess.run(["taskset", "-c", cores, *words], check=True, capture_output=True, text=True)
    return json.loads(done.stdout.splitlines()[-1])


def measure(run: Path, data: Path, threads: int) -> dict[str, Any]:
    import torch  # after the arguments: a list of families needs none
    from torch.utils.flop_counter import FlopCounterMode

    from isocenter.layouts import dataset_layouts

    torch.set_num_threads(threads)
    model = isocenter.load(run, "cpu")
    [first, *_] = model.networks.members
    module, record = first.module, model.networks.architecture
    images = torch.zeros(1, record["channels"], *model.inference.patch)
    context = () if not record.get("context") else (torch.zeros(1, record["context"]),)
    with torch.inference_mode(), FlopCounterMode(display=False) as counter:
        module(images, *context)
    times = []
    for case in list(dataset_layouts.read_dataset(data))[: TIMED + 1]:
        mark = time.monotonic()
        model.predict(case)
        times.append(time.monotonic() - mark)
    log = (run / "log.csv").read_text().splitlines()
    return {
        "steps": len(log) - 1,
        "parameters": sum(weight.numel() for weight in module.parameters()),
        "multiply_adds": counter.get_total_flops() // 2,
        "predict": 1000 * statistics.median(times[1:]),  # the first also allocates
    }


def _words(shown: Sequence[Shown]) -> str:
    """A line of each family, the best mean first."""
    columns = ("family", "mean (SD)", "steps", "weights", "multiply-adds", "predict, ms a case")
    names = dict.fromkeys(one.family for one in shown)
    by_family = {name: [one for one in shown if one.family == name] for name in names}
    good = {name: [one for one in runs if one.value is not None] for name, runs in by_family.items()}
    order = sorted(good, key=lambda name: -statistics.fmean(one.value or 0 for one in good[name]) if good[name] else 9)
    lines = [f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
    for name in order:
        why = by_family[name][0].problem or "undefined"
        lines.append(_line(name, good[name]) if good[name] else f"| `{name}` | {why} |" + " |" * (len(columns) - 2))
    return "\n".join(lines)


def _line(name: str, runs: Sequence[Shown]) -> str:
    values = [one.value for one in runs if one.value is not None]
    spread = f" ({statistics.stdev(values):.4f})" if len(values) > 1 else ""
    cells = [
        f"`{name}`",
        f"{statistics.fmean(values):.4f}{spread}",
        ", ".join(str(one.steps) for one in runs),
        f"{runs[0].parameters:,}",
        f"{runs[0].multiply_adds / 1e6:,.1f} M",
        f"{statistics.median(one.predict for one in runs):.0f}",
    ]
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    if sys.argv[1:2] == ["--measure"]:
        print(json.dumps(measure(Path(sys.argv[2]), Path(sys.argv[3]), int(sys.argv[4]))))
    else:
        main()
