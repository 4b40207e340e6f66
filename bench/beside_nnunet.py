"""One training of ours or of nnU-Net in so many minutes, and its prediction of the cases that were kept out."""

from __future__ import annotations

import shutil
from collections.abc import Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

from beside import HILUM, PeerError, Program, interleaved, peer
from raw import Raw

SIDES = Path(__file__).parent / "sides"
OURS = "Hilum"
NNUNET: Mapping[str, Sequence[str]] = {
    "nnU-Net, float32": [],
    "nnU-Net, float32-compiled": ["--compile"],
    "nnU-Net, bf16": ["--half"],
    "nnU-Net, bf16-compiled": ["--half", "--compile"],
}
# A training that takes so many times its minutes, and as many minutes more, hangs.
PATIENCE, GRACE_MINUTES = 2.0, 10.0
PREDICTING_SECONDS = 1800.0


def raced(
    side: str,
    minutes: float,
    seed: int,
    raw: Raw,
    folder: Path,
    *,
    threads: int,
    first_core: int = 0,
    options: Sequence[str] = (),
) -> dict[str, Any]:
    """Train from the raw files, then predict the images kept out into `folder / "predicted"`.

    seconds, peak_mib, cpu_seconds: of the training; said: what it measured itself; problem: a failure in words
    """
    shutil.rmtree(folder, ignore_errors=True)
    folder.mkdir(parents=True)
    empty = {"seconds": None, "problem": ""}
    try:
        if side == OURS:
            programs = _ours(minutes, seed, raw, folder, threads, options)
        else:
            programs = _nnunet(side, minutes, seed, raw, folder)
    except PeerError as error:
        return {**empty, "problem": str(error)}
    training, predicting = (replace(program, first_core=first_core) for program in programs)
    trained = interleaved([training], 1, threads).iloc[0]
    if trained["problem"]:
        return {**empty, "problem": f"training {trained['problem']}"}
    predicted = interleaved([predicting], 1, threads).iloc[0]
    if predicted["problem"]:
        return {**empty, "problem": f"predicting {predicted['problem']}"}
    figures = {name: float(trained[name]) for name in ("seconds", "peak_mib", "cpu_seconds")}
    return {**figures, "said": trained["said"], "problem": ""}


def _ours(
    minutes: float, seed: int, raw: Raw, folder: Path, threads: int, options: Sequence[str]
) -> tuple[Program, Program]:
    run, cache = folder / "run", {"HILUM_CACHE": str(folder / "cache")}
    length = ["--minutes", f"{minutes:g}", "--seed", str(seed), "--threads", str(threads), "--all"]
    train = [HILUM, "train", str(raw.ours), "--out", str(run), "--json", *length, *raw.options, *options]
    predict = [HILUM, "predict", str(run), str(raw.test), "--out", str(folder / "predicted")]
    return (
        Program(OURS, train, env=cache, at_most=60 * (PATIENCE * minutes + GRACE_MINUTES)),
        Program(f"{OURS}, predicting", predict, env=cache, at_most=PREDICTING_SECONDS),
    )


def _nnunet(side: str, minutes: float, seed: int, raw: Raw, folder: Path) -> tuple[Program, Program]:
    python, place = peer("nnunet"), folder / "nnunet"
    shutil.copytree(raw.nnunet, place / "nnUNet_raw")
    length = ["--minutes", f"{minutes:g}", "--seed", str(seed), "--configuration", raw.configuration]
    train = [str(python), str(SIDES / "nnunet_train.py"), str(place), *length, *NNUNET[side]]
    model = place / "nnUNet_results" / raw.dataset / f"nnUNetTrainer__nnUNetPlans__{raw.configuration}"
    predict = [
        *(str(python), str(python.with_name("nnUNetv2_predict_from_modelfolder"))),
        *("-i", str(raw.test_nnunet), "-o", str(folder / "predicted"), "-m", str(model)),
        *("-f", "all", "-device", "cpu"),
    ]
    return (
        Program(side, train, at_most=60 * (PATIENCE * minutes + GRACE_MINUTES)),
        Program(f"{side}, predicting", predict, at_most=PREDICTING_SECONDS),
    )
