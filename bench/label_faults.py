"""Labels that are flipped on purpose: how many are found among the first tenth of the list, and false alarms.

    OMP_NUM_THREADS=1 python bench/label_faults.py --draws 3 --clean 50 --trained 1 --record

Lists: of `check` alone (like images), of `check --minutes` with equal steps, and of confident learning (Northcutt et
al., JAIR 2021, doi:10.1613/jair.1.12125) by the same unseen probabilities: its own rule prunes by noise rate, and ranks
by the margin. Sets are as they are, in the large corpus; cells of blood smears are cut out along their boxes, a picture
each. A set counts as clean as its makers labelled it. Parts that ended are in `.bench/label_faults/cells.jsonl`.
"""

from __future__ import annotations

import argparse
import time
import xml.etree.ElementTree as ET
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from environment import ROOT
from PIL import Image
from recorded import measured_cell, record

import hilum
from hilum.evaluation import label_errors
from hilum.quality import label_contradictions
from hilum.quality.dataset_examination import Examination
from hilum.runs import label_trainings
from hilum.runs.plan_request import PlanRequest
from hilum.values import Case

PLACE, CORPUS = ROOT / ".bench" / "label_faults", ROOT.parent / "shared" / "data"
FLIPPED, LOOKED_AT = 0.05, 0.1
# Cells of each kind that are cut out of the smears, pixels along a side at the least.
CELLS, SMALLEST = 340, 8
CLEAN_SIZES = (20, 60, 200)


@dataclass(frozen=True)
class LabelledSet:
    """A set of images with classes. asked: share of flipped labels that check alone, and training, must find"""

    title: str
    path: Callable[[], Path]
    asked: str


def cells() -> Path:
    """Cells of the smears, a folder for each kind."""
    folder, source = PLACE / "cells", CORPUS / "bccd"
    if folder.is_dir():
        return folder
    boxes: dict[str, list[tuple[str, int, tuple[int, ...]]]] = {}
    for file in sorted((source / "Annotations").glob("*.xml")):
        for number, one in enumerate(ET.parse(file).iter("object")):  # noqa: S314 - our own copy of public files
            box = tuple(int(one.findtext(f"bndbox/{side}", "0")) for side in ("xmin", "ymin", "xmax", "ymax"))
            if min(box[2] - box[0], box[3] - box[1]) > SMALLEST:
                boxes.setdefault(one.findtext("name", ""), []).append((file.stem, number, box))
    rng = np.random.default_rng(0)
    for kind, found in boxes.items():
        (folder / kind).mkdir(parents=True)
        for place in rng.permutation(len(found))[:CELLS]:
            smear, number, box = found[place]
            Image.open(source / "JPEGImages" / f"{smear}.jpg").crop(box).save(folder / kind / f"{smear}-{number}.png")
    return folder


SETS = {
    "pneumonia": LabelledSet("PneumoniaMNIST", lambda: CORPUS / "medmnist" / "pneumoniamnist.npz", "50 %; 80 %"),
    "cells": LabelledSet("cells of BCCD, cut out", cells, "50 %; 80 %"),
    "chest": LabelledSet("chest_xray", lambda: CORPUS / "chest_xray", "stated"),
    "retina": LabelledSet("RetinaMNIST", lambda: CORPUS / "medmnist" / "retinamnist.npz", "stated"),
}


@cache
def examined(name: str) -> Examination:
    return hilum.check(SETS[name].path(), threads=1).examination


def labels_of(cases: Sequence[Case]) -> tuple[np.ndarray, list[str]]:
    """(cases,) index of each case's class, and the classes."""
    classes = sorted({str(case.references["class"]) for case in cases})
    return np.array([classes.index(str(case.references["class"])) for case in cases]), classes


def planted(name: str, draw: int) -> tuple[Examination, set[str]]:
    """The set with some labels flipped to another class, and whose."""
    examination = examined(name)
    cases = list(examination.dataset)
    rng = np.random.default_rng(draw)
    labels, classes = labels_of(cases)
    wrong = rng.permutation(len(cases))[: round(FLIPPED * len(cases))]
    for place in wrong.tolist():
        other = classes[(labels[place] + rng.integers(1, len(classes))) % len(classes)]
        cases[place] = replace(cases[place], references={**cases[place].references, "class": other})
    return with_cases(examination, cases), {cases[place].id for place in wrong}


def with_cases(examination: Examination, cases: Sequence[Case]) -> Examination:
    """The examination of these cases, whose facts on labels follow them."""
    answers = {case.id: str(case.references["class"]) for case in cases}
    facts = tuple(
        replace(one, references={**one.references, "class": answers[one.id]})
        for one in examination.fingerprint.cases
        if one.id in answers
    )
    dataset = replace(examination.dataset, cases=tuple(cases))
    return replace(examination, dataset=dataset, fingerprint=replace(examination.fingerprint, cases=facts))


def share_found(ranked: Sequence[str], wrong: set[str]) -> float:
    """Share of the wrong labels among the first tenth of a list."""
    first = ranked[: round(LOOKED_AT * len(ranked))]
    return len(wrong & set(first)) / len(wrong)


def confident_learning(chances: np.ndarray, labels: np.ndarray) -> tuple[np.ndarray, float]:
    """Cases in the order of their doubt, and the share of wrong labels, by confident learning.

    First those pruned by noise rate: of each off-diagonal cell of the joint as many as it holds, those with the largest
    margin. Then all others by the margin.
    """
    count = chances.shape[1]
    thresholds = np.array([chances[labels == one, one].mean() for one in range(count)])
    confident = np.where(chances >= thresholds, chances, -1.0)
    is_counted = confident.max(axis=1) >= 0
    joint = np.zeros((count, count))
    np.add.at(joint, (labels[is_counted], confident.argmax(axis=1)[is_counted]), 1)
    joint *= (np.bincount(labels, minlength=count) / joint.sum(axis=1).clip(1))[:, None]
    margins = chances - chances[np.arange(len(labels)), labels][:, None]
    is_pruned = np.zeros(len(labels), dtype=bool)
    for stated in range(count):
        for other in range(count):
            members = np.flatnonzero(labels == stated)
            if stated != other:
                most = members[np.argsort(-margins[members, other], kind="stable")]
                is_pruned[most[: round(joint[stated, other])]] = True
    others = margins.copy()
    others[np.arange(len(labels)), labels] = -np.inf
    order = np.lexsort((-others.max(axis=1), ~is_pruned))
    return order, float(1 - np.trace(joint) / joint.sum())


def alone(name: str, draw: int) -> dict[str, Any]:
    """Flipped labels found by check alone."""
    examination, wrong = planted(name, draw)
    began = time.process_time()
    [question] = label_contradictions.compare_like_images(
        examination.dataset, examination.fingerprint, examination.looks
    )
    taken = time.process_time() - began
    problems = [
        one
        for one in label_contradictions.contradiction_problems(
            examination.dataset, examination.fingerprint, examination.looks
        )
        if one.what.startswith("the label contradicts")
    ]
    named = {case for one in problems for case in one.cases}
    by_theirs, share = confident_learning(question.chances, question.labels)
    return {
        "found": share_found([question.ids[n] for n in np.argsort(-question.doubts, kind="stable")], wrong),
        "by_confident_learning": share_found([question.ids[n] for n in by_theirs], wrong),
        "named": len(named & wrong) / len(wrong),
        "named_right_labels": len(named - wrong),
        "their_share": share,
        "cpu_seconds": round(taken, 2),
    }


def trained(name: str, draw: int, steps: int) -> dict[str, Any]:
    """Flipped labels found by trainings of so many steps each."""
    examination, wrong = planted(name, draw)
    request = PlanRequest(threads=1, assignments={"training.steps": steps})
    ranking = label_trainings.rank_by_training(examination, "", request, began=time.monotonic())
    table = ranking.table
    share = ranking.shares["all"]
    cases = {case.id: str(case.references["class"]) for case in examination.dataset}
    # Of two classes the table holds both probabilities; of more the likeliest and that of the label rank alike.
    margin = (table["probability_probable"] - table["probability_reference"]).to_numpy()
    margin = np.where(table["probable"] == table["case"].map(cases), 1 - 2 * table["probability_reference"], margin)
    by_margin = table["case"].to_numpy()[np.argsort(-margin, kind="stable")].tolist()
    named = set(ranking.suspected["case"])
    return {
        "found": share_found(table["case"].tolist(), wrong),
        "by_margin": share_found(by_margin, wrong),
        "named": len(named & wrong) / len(wrong),
        "named_right_labels": len(named - wrong),
        "share": share.value,
        "low": share.low,
        "high": share.high,
        "steps": steps,
    }


def clean(name: str, size: int, draws: int) -> dict[str, Any]:
    """Share of sampled sets, as their makers labelled them, in which a case is named."""
    examination = examined(name)
    by_id = {case.id: case for case in examination.dataset}
    judged, named, cases_named = 0, 0, list[str]()
    for draw in range(draws):
        chosen = np.random.default_rng(1000 + draw).permutation(sorted(by_id))[:size]
        some = with_cases(examination, [by_id[one] for one in chosen])
        questions = list(label_contradictions.compare_like_images(some.dataset, some.fingerprint, some.looks))
        if not questions:
            continue
        judged += 1
        [question] = questions
        errors = label_errors.probable_label_errors(question.chances, question.labels, false=label_contradictions.FALSE)
        if (errors >= 0).any():
            named += 1
            cases_named += [question.ids[n] for n in np.flatnonzero(errors >= 0)]
    return {"sets": judged, "named": named, "cases": sorted(set(cases_named))}


def permuted(name: str, size: int, draws: int) -> dict[str, Any]:
    """The same with labels dealt at random, of which images tell nothing."""
    examination = examined(name)
    cases = list(examination.dataset)
    judged, named = 0, 0
    for draw in range(draws):
        rng = np.random.default_rng(2000 + draw)
        chosen = [cases[n] for n in rng.permutation(len(cases))[:size]]
        answers = rng.permutation([str(case.references["class"]) for case in chosen])
        dealt = [replace(case, references={"class": answer}) for case, answer in zip(chosen, answers, strict=True)]
        some = with_cases(examination, dealt)
        for question in label_contradictions.compare_like_images(some.dataset, some.fingerprint, some.looks):
            judged += 1
            errors = label_errors.probable_label_errors(
                question.chances, question.labels, false=label_contradictions.FALSE
            )
            named += bool((errors >= 0).any())
    return {"sets": judged, "named": named}


def percent(rows: Sequence[Mapping[str, Any]], key: str) -> str:
    """Mean of a share over draws, and its range."""
    values = [100 * row[key] for row in rows if row.get(key) is not None]
    if not values:
        return "not measured"
    spread = f" ({min(values):.0f} to {max(values):.0f})" if len(values) > 1 else ""
    return f"{np.mean(values):.0f}{spread}"


def found_table(alone_rows: Mapping[str, list], trained_rows: Mapping[str, list]) -> str:
    """Share of flipped labels found, in Markdown."""
    lines = [
        "Percent of the flipped labels among the first tenth of the list; in brackets the range over draws.",
        "",
        "| set | asked of check alone; of training | draws | check alone | confident learning, same probabilities | "
        "named by check alone (right labels named a set) | trainings (draws; steps) | margin, same probabilities | "
        "share expected to be wrong |",
        "|---|---|---:|---:|---:|---:|---:|---:|---:|",
    ]
    for name, labelled in SETS.items():
        rows, of_training = alone_rows.get(name, []), trained_rows.get(name, [])
        if not rows:
            continue
        right = np.mean([row["named_right_labels"] for row in rows])
        trainings = "not measured"
        share = "not measured"
        if of_training:
            trainings = f"{percent(of_training, 'found')} ({len(of_training)}; {of_training[0]['steps']})"
            first = of_training[0]
            share = f"{100 * first['share']:.1f} % ({100 * first['low']:.1f} to {100 * first['high']:.1f} %)"
        lines.append(
            f"| {labelled.title} | {labelled.asked} | {len(rows)} | {percent(rows, 'found')} | "
            f"{percent(rows, 'by_confident_learning')} | {percent(rows, 'named')} ({right:.1f}) | {trainings} | "
            f"{percent(of_training, 'by_margin')} | {share} |"
        )
    return "\n".join(lines)


def alarms_table(rows: Mapping[str, Mapping[str, Any]]) -> str:
    """Sets in which a case is named, in Markdown."""
    lines = ["| sets sampled of | cases | sets | with a case named |", "|---|---:|---:|---:|"]
    for name, row in rows.items():
        title, size = name.rsplit(" ", 1)
        share = f"{row['named']} ({row['named'] / row['sets']:.1%})" if row["sets"] else "none could be judged"
        lines.append(f"| {title} | {size} | {row['sets']} | {share} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--draws", type=int, default=3, help="of flipped labels, for check alone")
    parser.add_argument("--clean", type=int, default=50, help="sets sampled of each size")
    parser.add_argument("--trained", type=int, default=0, help="draws that trainings rank too")
    parser.add_argument("--sets", nargs="+", default=list(SETS), choices=SETS)
    parser.add_argument("--steps", nargs="*", default=[], metavar="SET=N", help="steps of each training of a set")
    parser.add_argument("--record", action="store_true", help="write the tables to the findings")
    given = parser.parse_args()
    PLACE.mkdir(parents=True, exist_ok=True)
    steps = {name: int(count) for name, _, count in (one.partition("=") for one in given.steps)}
    alone_rows = {
        name: [measured_cell(PLACE, f"alone {name} {n}", lambda: alone(name, n)) for n in range(given.draws)]  # noqa: B023
        for name in given.sets
    }
    alarms = {}
    for name in given.sets:
        for size in CLEAN_SIZES:
            for kind, sample in (("as labelled", clean), ("labels dealt at random", permuted)):
                key = f"{SETS[name].title}, {kind} {size}"
                alarms[key] = measured_cell(PLACE, f"{key} {given.clean}", lambda: sample(name, size, given.clean))  # noqa: B023
    trained_rows = {
        name: [
            measured_cell(PLACE, f"trained {name} {n} {count}", lambda: trained(name, n, count))  # noqa: B023
            for n in range(given.trained)
        ]
        for name, count in steps.items()
    }
    text = f"{found_table(alone_rows, trained_rows)}\n\n{alarms_table(alarms)}"
    print(text)
    if given.record:
        data = {"alone": alone_rows, "trained": trained_rows, "alarms": alarms}
        record("label_faults", "Labels that are flipped on purpose", text, data)


if __name__ == "__main__":
    main()
