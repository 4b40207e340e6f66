"""Steps a second at the network, batch and patch that nnU-Net plans for hippocampus: Hilum beside nnU-Net.

    python bench/training_steps.py --record
    python bench/training_steps.py --device cuda --record

Both train nnU-Net's PlainConvUNet (batch 7 of 40 x 56 x 40) on the same cases with the same number of threads, each by
its own trainer with its own loading, augmentation and optimiser, in the precision that is named. nnU-Net computes in
float32 on a processor; that it is also run in bfloat16 and compiled is not its stock. A step is the time from the end
of one to the end of the next, so what is waited for data counts; the first five are left out. On a GPU each side
decides by itself how it computes.
"""

from __future__ import annotations

import json
import shutil
import sys
from pathlib import Path
from typing import Any

import torch
from beside import PLACE, Program, arguments, failures, interleaved, markdown, peer, ratio, record, versions
from raw import OUR_LABELS, Raw, hippocampus

SIDES = Path(__file__).parent / "sides"
PLANS = "nnunet_hippocampus/plans.json"
# The same network as nnU-Net's plan says, in the names of our family.
SIZE: dict[str, Any] = {
    "features": [32, 64, 128, 256],
    "kernels": [[3, 3, 3]] * 4,
    "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2], [2, 2, 2]],
    "convolutions": [2, 2, 2, 2],
    "decoder_convolutions": [2, 2, 2],
    "deep_supervision": 1,  # nnU-Net gives its coarsest of three outputs no weight
}
NETWORKS = {"plain_conv_unet": SIZE, "unet": {"strides": SIZE["strides"], "width": 32, "residual": False}}
# By device: of processors with bfloat16 what the probe finds; on a GPU it chooses where nothing is said.
OURS: dict[str, dict[str, dict[str, str]]] = {
    "cpu": {
        "Hilum, bf16": {"training.precision": "bf16", "training.compute": "channels-last"},
        "Hilum, float32": {"training.precision": "float32", "training.compute": "eager"},
    },
    "cuda": {
        "Hilum, bf16": {"training.precision": "bf16"},
        "Hilum, bf16, compiled": {"training.precision": "bf16", "training.compute": "compiled"},
    },
}
OUR_NAMES = {name for programs in OURS.values() for name in programs}
NNUNET: dict[str, list[str]] = {
    "nnU-Net, float32": [],
    "nnU-Net, float32, compiled": ["--compile"],
    "nnU-Net, bf16": ["--half"],
    "nnU-Net, bf16, compiled": ["--half", "--compile"],
}
# On a GPU nnU-Net computes in half precision and compiles by itself.
NNUNET_ON_GPU: dict[str, list[str]] = {
    "nnU-Net, as it ships": ["--device", "cuda", "--compile"],
    "nnU-Net, not compiled": ["--device", "cuda"],
}
ON_GPU = "_gpu"
# Of our steps on a GPU, whose first ones try out how to compute: fewer are no figure.
FEWEST = 40
# Seconds after which a run is ended: with so many steps it hangs.
AT_MOST = 3600.0


def main() -> None:
    parser = arguments(__doc__, repeats=3)
    parser.add_argument("--steps", type=int, default=25, help="of nnU-Net")
    parser.add_argument("--minutes", type=float, default=3.0, help="of our training, whose probe needs some")
    parser.add_argument("--network", choices=list(NETWORKS), default="plain_conv_unet")
    parser.add_argument("--device", choices=["cpu", "cuda"], default="cpu")
    parser.add_argument("--programs", nargs="+", help="only those that are named")
    parser.add_argument("--prepared", type=Path, help="nnUNet_preprocessed of an earlier run, in place of a new one")
    given = parser.parse_args()
    gpu = given.device == "cuda"
    if gpu and not torch.cuda.is_available():
        sys.exit("--device cuda: not measured, this machine has no GPU that torch can use")
    steps, repeats = (2, 1) if given.small else (given.steps, given.repeats)
    minutes = 0.5 if given.small else given.minutes
    python = peer("nnunet")
    work = PLACE / "work" / f"training_steps{'-small' * given.small}"
    raw = hippocampus(given.data, work, train=8 if given.small else None)
    plans = given.data / PLANS
    if given.prepared:
        shutil.copytree(given.prepared, work / "nnUNet_preprocessed")
    else:
        _prepared(python, work, plans, given.threads)
    programs = [*_ours(raw, work, minutes, given), *_nnunet(python, work, steps, gpu)]
    chosen = [program for program in programs if not given.programs or program.name in given.programs]
    if not chosen:
        parser.error(f"--programs: there are {', '.join(repr(program.name) for program in programs)}")
    try:
        table = interleaved(chosen, repeats, given.threads)
    finally:
        shutil.rmtree(work / "cache", ignore_errors=True)
    if gpu and not given.small:
        _refuse_few(table)
    columns = {"step": "seconds a step", "waiting": "share waited for data", "peak_mib": "peak memory, MiB"}
    ratios = _ratios(table)
    failed = [f"Failed: {one}." for one in failures(table)]
    parts = [
        markdown(table, columns),
        "\n".join(_sentences(ratios)),
        "\n".join(_decided(table)),
        *failed,
        *_without_gpu(gpu),
    ]
    text = "\n\n".join(part for part in parts if part)
    print(text)
    if given.record:
        data = {"runs": table.to_dict("records"), "ratios": ratios, "steps": steps, "peer": versions("nnunet")}
        record(f"training_steps{ON_GPU * gpu}", f"Training steps beside nnU-Net{', on a GPU' * gpu}", text, data)


def _prepared(python: Path, work: Path, plans: Path, threads: int) -> None:
    """nnU-Net's data, planned and prepared once before the clock of the steps runs."""
    command = [str(python), str(SIDES / "nnunet_train.py"), str(work), "--plans", str(plans)]
    table = interleaved([Program("nnU-Net, preparing", command, at_most=AT_MOST)], 1, threads)
    if failures(table):
        sys.exit("; ".join(failures(table)))


def _ours(raw: Raw, work: Path, minutes: float, given: Any) -> list[Program]:
    found = []
    for name, decided in OURS[given.device].items():
        by_hand: dict[str, Any] = {
            "network.name": given.network,
            "network.size": NETWORKS[given.network],
            "training.batch": 7,
            "training.patch": [40, 56, 40],
            "training.threads": given.threads,
            **decided,
        }
        words = [f"{key}={json.dumps(value)}" for key, value in by_hand.items()]
        out = work / f"run-{'-'.join(decided.values())}"
        command = [
            sys.executable,
            str(SIDES / "train_steps.py"),
            str(raw.ours),
            OUR_LABELS,
            str(out),
            f"{minutes:g}",
            given.device,
            *words,
        ]
        # Not the user's own cache; preparing comes before the steps and is not in their seconds.
        found.append(Program(name, command, env={"HILUM_CACHE": str(work / "cache")}, at_most=AT_MOST))
    return found


def _nnunet(python: Path, work: Path, steps: int, gpu: bool) -> list[Program]:
    command = [str(python), str(SIDES / "nnunet_train.py"), str(work), "--prepared", "--steps", str(steps)]
    chosen = NNUNET_ON_GPU if gpu else NNUNET
    return [Program(name, [*command, *options], at_most=AT_MOST) for name, options in chosen.items()]


def _refuse_few(table: Any) -> None:
    """A run of ours that took too few steps to time them has failed."""
    for index, row in table[table["program"].isin(OUR_NAMES) & (table["problem"] == "")].iterrows():
        if row["said"]["steps"] < FEWEST:
            table.loc[index, "problem"] = f"only {row['said']['steps']} steps: give more --minutes"


def _without_gpu(gpu: bool) -> list[str]:
    return [] if gpu or torch.cuda.is_available() else ["On a GPU: not measured, there is none here."]


def _ratios(table: Any) -> dict[str, Any]:
    """How many times longer each of nnU-Net's steps takes than ours of either precision."""
    found: dict[str, Any] = {}
    measured = table["program"].unique()
    for ours in (name for name in measured if name in OUR_NAMES):
        for theirs in (name for name in measured if name not in OUR_NAMES):
            try:
                found[f"{theirs} / {ours}"] = vars(ratio(table, ours, theirs, "step"))
            except ValueError as error:
                found[f"{theirs} / {ours}"] = {"not measured": str(error)}
    return found


def _decided(table: Any) -> list[str]:
    """What the probe of each of our runs found, and which share of the machine's peak its steps reach."""
    lines = []
    for _, row in table[table["program"].isin(OUR_NAMES) & (table["problem"] == "")].iterrows():
        output = row["said"]
        line = f"- {row['program']}, run {row['repeat'] + 1}, computed: {output['compute']}"
        if output["reached"]:
            line += f"; {100 * output['reached']:.0f} % of the peak of {output['peak'] / 1e9:.0f} GFLOP/s"
        lines.append(line)
    return lines


def _sentences(ratios: dict[str, Any]) -> list[str]:
    lines = ["| a step of nnU-Net takes so many times one of ours | ratio | lowest to highest |", "|---|---|---|"]
    for name, one in ratios.items():
        if "not measured" in one:
            lines.append(f"| {name} | not measured | {one['not measured']} |")
        else:
            lines.append(f"| {name} | {one['value']:.2f} | {one['low']:.2f} to {one['high']:.2f} |")
    return lines


if __name__ == "__main__":
    main()
