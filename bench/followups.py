"""Simulated follow-ups of hippocampus volumes: what `predict --prior` states of a shrinkage that is known.

    python bench/followups.py --out DIR --minutes 3 --record

A model is trained for some minutes. Of volumes that it has not seen, both studies are simulated: each lies elsewhere
(turned by up to 6 degrees, shifted by up to 3 mm, with noise of 1 % of the range), and in the second one the
hippocampus has shrunk by 0 to 10 % of its volume. The limits are those of two studies of ten other volumes without any
change (repeatability coefficient, % of the mean of both). The oracle answers with the drawn labels, carried to where
they lie: what then differs is the voxel's size. Cells that have ended are lines of DIR/cells.jsonl.
"""

from __future__ import annotations

import argparse
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import torch
from environment import ROOT
from recorded import measured_cell, record
from scipy import ndimage
from scipy.spatial.transform import Rotation

import isocenter
from isocenter.evaluation import biomarkers
from isocenter.prediction import earlier_study
from isocenter.prediction.earlier_study import EarlierStudy
from isocenter.values import Image, Prediction

DATA = ROOT.parent / "shared" / "data" / "hippocampus"
REPEATS, UNCHANGED, CHANGED = 10, 10, 20
DEGREES, SHIFT, NOISE = 6.0, 3.0, 0.01
# mm around the hippocampus that shrink with it, and up to which the tissue gives way.
WITH_IT, GIVES_WAY = 1.5, 8.0


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", type=Path, required=True)
    parser.add_argument("--minutes", type=float, default=3.0, help="of the training")
    parser.add_argument("--oracle", type=int, default=UNCHANGED + CHANGED, help="follow-ups that the oracle answers")
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    given.out.mkdir(parents=True, exist_ok=True)
    torch.set_num_threads(2)
    run = given.out / "run"
    if not run.is_dir():
        isocenter.train(DATA, out=run, minutes=given.minutes)
    table = pd.read_csv(run / "split.csv", dtype=str)
    unseen = sorted(table.loc[table["split"].isin(["test", "val"]), "case"].unique())
    followed = unseen[: UNCHANGED + CHANGED]
    plain = isocenter.load(run)
    limits = measured_cell(given.out, "repeats", lambda: repeatability(plain, unseen[-REPEATS:]))
    rows = []
    for by, count in (("model", len(followed)), ("oracle", given.oracle)):
        for number, case in enumerate(followed[:count]):
            shrunk = 0.0 if number < UNCHANGED else 10.0 * (number - UNCHANGED + 1) / CHANGED
            own = {name.removeprefix(f"{by} "): value for name, value in limits.items() if name.startswith(by)}
            model = replace(plain, record={**plain.record, "repeatability": own})
            cell = measured_cell(
                given.out, f"{case} {by}", lambda c=case, n=number, s=shrunk, b=by, m=model: follow_up(m, c, n, s, b)
            )
            rows.append({**cell, "case": case, "by": by, "planted": -shrunk})
    text = summary(pd.DataFrame(rows), limits)
    print(text)
    if given.record:
        record("followups", "Change since an earlier study", text, {"limits": limits, "rows": rows})


def simulated(case: str, seed: int, shrunk: float) -> tuple[Image, np.ndarray]:
    """An image and its labels in another position, the hippocampus smaller by percent."""
    image, labels = (isocenter.read(DATA / folder / f"{case}.nii.gz") for folder in ("images", "labels"))
    draw = np.random.default_rng(seed)
    turn = Rotation.from_rotvec(np.radians(DEGREES) * draw.uniform(-1, 1, 3) / np.sqrt(3)).as_matrix()
    geometry, drawn = image.geometry, labels.data[0]
    points = geometry.to_world(np.moveaxis(np.indices(geometry.shape), 0, -1))
    middle = points.reshape(-1, 3).mean(axis=0)
    points = (points - middle) @ turn.T + middle + draw.uniform(-SHIFT, SHIFT, 3)
    centre = geometry.to_world(np.argwhere(drawn > 0)).mean(axis=0)
    away = ndimage.distance_transform_edt(drawn == 0, sampling=geometry.steps)
    near = ndimage.map_coordinates(away, np.moveaxis(geometry.to_index(points), -1, 0), order=1, mode="nearest")
    share = (1 + np.cos(np.pi * np.clip((near - WITH_IT) / (GIVES_WAY - WITH_IT), 0, 1))) / 2
    factor = 1 + ((1 - shrunk / 100) ** (-1 / 3) - 1) * share
    places = np.moveaxis(geometry.to_index(centre + (points - centre) * factor[..., None]), -1, 0)
    values = ndimage.map_coordinates(image.data[0].astype(float), places, order=3, mode="nearest")
    values += draw.normal(0, NOISE * np.ptp(image.data), values.shape)
    chances = [ndimage.map_coordinates((drawn == one).astype(float), places, order=1) for one in (1, 2)]
    outside = 1 - sum(chances)
    made = np.argmax([outside, *chances], axis=0).astype(np.uint8)
    return image.with_pixels(values[None].astype(np.float32)), made


def oracle(model: Any, image: Image, drawn: np.ndarray) -> tuple[Prediction, list[Any]]:
    prediction = Prediction(image.geometry, data=drawn, labels=tuple(model.task.labels))
    return prediction, model.task.results(prediction)


def sizes(model: Any, case: str, seed: int, by: str) -> dict[str, float]:
    image, drawn = simulated(case, seed, 0.0)
    prediction = oracle(model, image, drawn)[0] if by == "oracle" else model.predict(image)
    return {one.concept: one.value for one in model.task.results(prediction) if one.unit == "ml"}


def repeatability(model: Any, cases: list[str]) -> dict[str, Any]:
    """{answer and structure: coefficient in percent}, of each of these volumes twice."""
    limits = {}
    for by in ("model", "oracle"):
        pairs = [[sizes(model, case, 7000 + 2 * n + again, by) for again in (0, 1)] for n, case in enumerate(cases)]
        for name in pairs[0][0]:
            first, second = ([pair[again][name] for pair in pairs] for again in (0, 1))
            found = biomarkers.repeatability(first, second, relative=True)
            limits[f"{by} {name}"] = round(found.coefficient.value, 3)
    return limits


def follow_up(model: Any, case: str, number: int, shrunk: float, by: str) -> dict[str, Any]:
    """{structure: stated percent; limits}, as `predict --prior` states them, or why none is."""
    (before, drawn_before), (now, drawn_now) = simulated(case, 2 * number, 0.0), simulated(case, 2 * number + 1, shrunk)
    if by == "model":
        change = isocenter.predict(model, now, prior=before, days=365.25).change
    else:
        first, second = oracle(model, before, drawn_before), oracle(model, now, drawn_now)
        earlier = EarlierStudy(before, {"": (drawn_before, tuple(model.task.labels))}, first[1], days=365.25)
        change = earlier_study.compare_studies(model, now, *second, earlier, "")
    stated = {f"{one.group} %": one.value for one in change.findings}
    reach = {f"{one.group} limit": (one.high - one.low) / 2 for one in change.findings if one.low is not None}
    return {**stated, **reach, "refusal": change.refusal}


def summary(rows: pd.DataFrame, limits: dict[str, Any]) -> str:
    """A row for each answer: how near, and how often an unchanged structure is stated as changed."""
    heads = ("answers", "stated", "within 2 points", "median miss, points", "unchanged, beyond its limits", "limits")
    lines = [f"| {' | '.join(heads)} |", "|---" * len(heads) + "|"]
    for by, own in rows.groupby("by"):
        names = [column.removesuffix(" %") for column in own if column.endswith(" %")]
        columns = ["is", "limit", "planted"]
        each = pd.concat([own[[f"{n} %", f"{n} limit", "planted"]].set_axis(columns, axis=1) for n in names])
        stated = each[each["is"].notna()]
        miss = (stated["is"] - stated["planted"]).abs()
        same = stated[stated["planted"] == 0]
        beyond = int((same["is"].abs() > same["limit"]).sum())
        reach = [
            f"{name.removeprefix(f'{by} ')} {value:.1f} %" for name, value in limits.items() if name.startswith(by)
        ]
        counts = f"{len(stated)} of {len(each)} | {int((miss <= 2).sum())} ({(miss <= 2).mean():.0%})"
        lines.append(f"| {by} | {counts} | {miss.median():.2f} | {beyond} of {len(same)} | {', '.join(reach)} |")
    return "\n".join(lines)


if __name__ == "__main__":
    main()
