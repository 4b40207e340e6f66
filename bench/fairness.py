"""Audits of groups: gaps that are there, false alarms, time; and what it brings and costs to treat groups alike.

    python bench/fairness.py --record

Simulated. Audits: 200 patients of two sexes and three sites, whose probabilities have noise; "planted" has more of it
in one sex. Training: in pictures of 32 pixels the sign of a disease is a bright spot in men and a dark one in women,
and the other spot means nothing; how bright a picture is tells the sex. Of 500 training patients 60 are women, of whom
fewer are ill; of 400 test patients half. A network that learns from men calls women by a spot that means nothing.
"""

from __future__ import annotations

import argparse
import json
import statistics
import tempfile
import time
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import PIL.Image
from recorded import commit, known, record

import isocenter
from isocenter.evaluation import Gap, adjusted_gaps, auroc, holm
from isocenter.tasks.classification.task import Classification
from isocenter.verbs.auditing.groups import Look

METHODS = ("none", "reweigh", "resample", "balanced_batches", "group_dro", "adversarial")
SIZE = {"width": 8, "blocks": [1, 1], "stem_stride": 1}
LEVEL, NOISE = 0.05, 3.0


@dataclass(frozen=True)
class Treated:
    """One training: how good it is for all, and how far the sexes lie apart; commit: that measured it."""

    method: str
    seed: int
    auroc: float
    women: float
    odds: float
    low: float | None
    high: float | None
    commit: str = ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--only", nargs="+", default=["audits", "time", "trainings"])
    parser.add_argument("--audits", type=int, default=400, help="without any effect")
    parser.add_argument("--planted", type=int, default=40, help="with more noise in one sex")
    parser.add_argument("--cases", type=int, default=100_000, help="of the audit whose time is taken")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    data = {name: value for name, value in known("fairness").items() if name in ("audits", "time", "trainings")}
    if "audits" in given.only:
        alarms = sum(bool(_found(_audited(table(200, seed), "sex,site"))) for seed in range(given.audits))
        data["audits"] = {"alarms": alarms, "count": given.audits, "planted": list(_planted(given.planted))}
    if "time" in given.only:
        made, began = table(given.cases, 0), time.perf_counter()
        _audited(made, "sex,site")
        data["time"] = {"cases": given.cases, "seconds": time.perf_counter() - began}
    if "trainings" in given.only:
        data["trainings"] = [asdict(one) for one in _treated(given.seeds, given.steps)]
    text = _words(data)
    print(text)
    if given.record:
        record("fairness", "Groups of people", text, data)


def table(count: int, seed: int, worse: float = 0.0) -> pd.DataFrame:
    """Cases of two classes, each another patient's; worse: how much more noise there is in women."""
    random = np.random.default_rng(seed)
    sex, site = random.choice(["F", "M"], count), random.choice(list("abc"), count)
    ill = random.random(count) < 0.5
    chance = 1 / (1 + np.exp(-(3 * ill - 1.5 + random.normal(size=count) * (1 + worse * (sex == "F")))))
    names, words = np.arange(count).astype(str), np.array(["fine", "ill"])
    stated = {"reference": words[ill.astype(int)], "predicted": words[(chance > 0.5).astype(int)]}
    chances = {"probability_fine": 1 - chance, "probability_ill": chance, "brier": (chance - ill) ** 2}
    who = {"case": names, "patient": names, "split": "test", "label": "all"}
    return pd.DataFrame({**who, **stated, **chances, "covariate_sex": sex, "covariate_site": site})


def _audited(made: pd.DataFrame, asked: str) -> list[Gap]:
    """All that an evaluation does but the report."""
    task, gaps = Classification(("fine", "ill")), list[Gap]()
    for name in asked.split(","):
        look = Look(name, "", task, made, made[f"covariate_{name}"].to_numpy(object), 0)
        list(look.rows())
        gaps += look.gaps()
    return adjusted_gaps(gaps, holm)


def _found(gaps: Sequence[Gap]) -> list[Gap]:
    return [gap for gap in gaps if gap.p_adjusted < LEVEL]


def _planted(count: int) -> Iterator[dict[str, Any]]:
    """The gap of AUROC where women have more noise, and whether its interval holds that of very many patients."""
    many = table(400_000, 10_000, NOISE)
    each = {
        name: float(auroc(own["probability_ill"].to_numpy(), (own["reference"] == "ill").to_numpy()))
        for name, own in many.groupby("covariate_sex")
    }
    true = each["M"] - each["F"]
    for seed in range(count):
        gaps = _audited(table(200, seed, NOISE), "sex,site")
        [gap] = [one for one in gaps if (one.attribute, one.metric) == ("sex", "auroc")]
        found, others = gap.p_adjusted < LEVEL and gap.worst == "F", [g for g in _found(gaps) if g.attribute == "site"]
        holds = gap.low <= true <= gap.high
        yield {"found": found, "holds": holds, "another": bool(others), "value": gap.value, "true": true}


def pictures(root: Path, seed: int) -> Path:
    """The pictures and their table."""
    random, rows = np.random.default_rng(seed), ["file,label,sex,patient,split"]
    for part, count, women, share in (("train", 500, 60, 0.25), ("val", 100, 50, 0.5), ("test", 400, 200, 0.5)):
        for n in range(count):
            is_woman = n < women
            ill = random.random() < (share if is_woman else 0.5)
            pixels = random.normal(90 if is_woman else 60, 14, (32, 32))
            sign = -1 if is_woman else 1
            for level, there in ((sign, ill), (-sign, random.random() < 0.5)):
                down, across = random.integers(2, 24, size=2)
                pixels[down : down + 6, across : across + 6] += level * random.normal(40, 10) * there
            name = f"{part}{n}.png"
            PIL.Image.fromarray(pixels.clip(0, 255).astype(np.uint8)).save(root / name)
            rows.append(f"{name},{'ill' if ill else 'fine'},{'F' if is_woman else 'M'},{part}{n},{part}")
    (root / "table.csv").write_text("\n".join(rows))
    return root / "table.csv"


def _treated(seeds: list[int], steps: int) -> Iterator[Treated]:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            data = pictures(Path(folder), seed)
            for method in METHODS:
                yield _trained(data, Path(folder) / method, method, seed, steps)


def _trained(data: Path, out: Path, method: str, seed: int, steps: int) -> Treated:
    protected = {} if method == "none" else {"training.fairness": method, "training.protected": "sex"}
    chosen = {
        **protected,
        **{"training.steps": steps, "training.validations": 4, "training.batch": 32, "network.name": "resnet"},
        **{"network.size": SIZE, "augmentation.mixup": 0.0, "guard.gate": False},
    }
    isocenter.train(
        data, out=out, device="cpu", threads=1, seed=seed, groups="sex", assignments=chosen,
        column={"image": "file", "label": "label"},
    )  # fmt: skip
    folder = out / "evaluation"
    rows = pd.read_csv(folder / "groups.csv")
    every = pd.DataFrame(json.loads((folder / "summary.json").read_text())["rows"])
    gaps = json.loads((folder / "fairness.json").read_text())["gaps"]
    [odds] = [gap for gap in gaps if gap["metric"] == "equalised_odds_difference"]
    women = rows[(rows["group"] == "F") & (rows["metric"] == "auroc") & (rows["label"] == "all")]["value"].item()
    whole = every[(every["metric"] == "auroc") & (every["label"] == "all")]["value"].item()
    return Treated(method, seed, whole, women, odds["value"], odds["low"], odds["high"], commit())


def _words(data: Mapping[str, Any]) -> str:
    lines = []
    if audits := data.get("audits"):
        planted = audits["planted"]
        found, holds, another = (sum(one[name] for one in planted) for name in ("found", "holds", "another"))
        true = planted[0]["true"] if planted else float("nan")
        lines.append(
            f"Without any effect {audits['alarms']} of {audits['count']} audits of 200 patients show a gap, of 14 each "
            f"(adjusted p below {LEVEL:g}). With more noise in women (a gap of {true:.3f} in AUROC) {found} of "
            f"{len(planted)} audits show it and name them; its interval holds the true one in {holds}; in {another} a "
            "gap among sites is shown, where there is none."
        )
    if taken := data.get("time"):
        lines += ["", f"An audit of {taken['cases']:,} cases by sex and site takes {taken['seconds']:.0f} s."]
    if treated := data.get("trainings"):
        lines += ["", "What it brings to treat groups alike, means over the seeds, then each seed:", ""]
        lines += ["| `training.fairness` | equalised odds difference | AUROC | AUROC of women |", "|---|---|---|---|"]
        for method in dict.fromkeys(one["method"] for one in treated):
            own = [one for one in treated if one["method"] == method]
            lines.append(f"| {method} | {_cell(own, 'odds')} | {_cell(own, 'auroc')} | {_cell(own, 'women')} |")
    return "\n".join(lines)


def _cell(own: list[Mapping[str, Any]], name: str) -> str:
    values = [one[name] for one in own]
    return f"**{statistics.fmean(values):.3f}**: {', '.join(f'{value:.3f}' for value in values)}"


if __name__ == "__main__":
    main()
