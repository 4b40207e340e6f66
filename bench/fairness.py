"""Audits of groups: gaps that are there, false alarms, time; and what it brings and costs to treat groups alike.

    python bench/fairness.py --data ../shared/data --record

Real: COVID-19 or another pneumonia in radiographs (`multimodal`, one training, scored by folds of patients), and death
within two years of lung cancer by a table without images (Lung1, a logistic regression, out of fold).
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
from covariates import chest
from recorded import commit, known, record
from sklearn.impute import SimpleImputer
from sklearn.linear_model import LogisticRegression
from sklearn.model_selection import StratifiedKFold, cross_val_predict
from sklearn.pipeline import make_pipeline
from sklearn.preprocessing import StandardScaler

import isocenter
from isocenter.evaluation import classification
from isocenter.evaluation.fairness import group_gaps
from isocenter.evaluation.fairness.group_gaps import FEW, Gap
from isocenter.evaluation.significance import testing
from isocenter.scoring.auditing import group_audit
from isocenter.scoring.auditing.audit_options import AuditOptions
from isocenter.scoring.auditing.group_audit import AttributeGroups
from isocenter.scoring.case_scoring import AuditInput, ScoredCases
from isocenter.tasks.classification.question import Classification

METHODS = ("none", "reweigh", "resample", "balanced_batches", "group_dro", "adversarial", "constraint")
PARTS = ("audits", "time", "trainings", "real")
TWO_YEARS, REAL_STEPS = 730, 60
SIZE = {"width": 8, "blocks": [1, 1], "stem_stride": 1}
LEVEL, NOISE = 0.05, 3.0
# Gaps of real data in the table.
MOST_LINES = 6


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
    parser.add_argument("--only", nargs="+", default=PARTS)
    parser.add_argument("--methods", nargs="+", default=METHODS, help="of the trainings; others stay as recorded")
    parser.add_argument("--data", type=Path, default=Path("../shared/data"), help="the shared data")
    parser.add_argument("--audits", type=int, default=400, help="without any effect")
    parser.add_argument("--planted", type=int, default=40, help="with more noise in one sex")
    parser.add_argument("--cases", type=int, default=100_000, help="of the audit whose time is taken")
    parser.add_argument("--seeds", type=int, nargs="*", default=[0, 1, 2], help="of the trainings")
    parser.add_argument("--steps", type=int, default=240)
    parser.add_argument("--record", action="store_true")
    given = parser.parse_args()
    data = {name: value for name, value in known("fairness").items() if name in PARTS}
    if "audits" in given.only:
        alarms = sum(bool(_found(_audited(table(200, seed), "sex,site"))) for seed in range(given.audits))
        data["audits"] = {"alarms": alarms, "count": given.audits, "planted": list(_planted(given.planted))}
    if "time" in given.only:
        made, began = table(given.cases, 0), time.perf_counter()
        _audited(made, "sex,site")
        data["time"] = {"cases": given.cases, "seconds": time.perf_counter() - began}
    if "trainings" in given.only:
        kept = [one for one in data.get("trainings", []) if one["method"] not in given.methods]
        data["trainings"] = [*kept, *(asdict(one) for one in _treated(given.methods, given.seeds, given.steps))]
    if "real" in given.only:
        data["real"] = [*_real(given.data)]
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
        look = AttributeGroups(name, "", task, made, made[f"covariate_{name}"].to_numpy(object), 0)
        list(look.rows())
        gaps += look.gaps()
    return group_gaps.adjusted_gaps(gaps, testing.holm)


def _found(gaps: Sequence[Gap]) -> list[Gap]:
    return [gap for gap in gaps if gap.p_adjusted < LEVEL]


def _planted(count: int) -> Iterator[dict[str, Any]]:
    """The gap of AUROC where women have more noise, and whether its interval holds that of very many patients."""
    many = table(400_000, 10_000, NOISE)
    each = {
        name: float(classification.auroc(own["probability_ill"].to_numpy(), (own["reference"] == "ill").to_numpy()))
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


def _treated(methods: Sequence[str], seeds: list[int], steps: int) -> Iterator[Treated]:
    for seed in seeds:
        with tempfile.TemporaryDirectory() as folder:
            data = pictures(Path(folder), seed)
            for method in methods:
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


def _real(data: Path) -> Iterator[dict[str, Any]]:
    """What audits of real data find: their gaps, and the seconds of the audit."""
    with tempfile.TemporaryDirectory() as folder:
        chest(data / "multimodal", Path(folder))
        out = Path(folder) / "run"
        isocenter.train(
            Path(folder) / "table.csv", out=out, device="cpu", threads=1, folds=3, groups="sex,age:60",
            column={"image": "file", "label": "label", "patient": "patientid"},
            assignments={"training.steps": REAL_STEPS, "training.validations": 2, "guard.gate": False},
        )  # fmt: skip
        cases = pd.read_csv(out / "evaluation" / "cases.csv", dtype={"case": str, "patient": str})
    yield _summed("multimodal", cases, "sex,age:60")
    yield _summed("Lung1", lung(data / "survival"), "gender,age:70,gender*age:70")


def _summed(name: str, cases: pd.DataFrame, asked: str) -> dict[str, Any]:
    classes = tuple(column.removeprefix("probability_") for column in cases if column.startswith("probability_"))
    scored = ScoredCases(cases, (), task=Classification(classes))
    began = time.process_time()
    found = group_audit.audit_groups(AuditInput(scored, None, (), 0, True, options=AuditOptions(groups=asked)))
    assert found is not None
    gaps = [gap for gap in found.records["fairness.json"][1]["gaps"] if gap["value"] is not None]
    shown = sorted(gaps, key=lambda gap: gap["p"] if gap["p"] is not None else 2.0)[:MOST_LINES]
    rows = found.tables["groups.csv"]
    rows = rows[rows["judged"] == FEW]
    few = sorted({f"{row.attribute} {row.group}" for row in rows.itertuples()})
    facts = {"cases": len(cases), "patients": cases["patient"].nunique(), "tested": len(gaps), "few": few}
    return {"name": name, **facts, "gaps": shown, "seconds": time.process_time() - began, "commit": commit()}


def lung(data: Path) -> pd.DataFrame:
    """Scored patients, of whom it is known whether they were dead after two years; each by fits without them."""
    table = pd.read_csv(data / "clinical.csv").merge(pd.read_csv(data / "radiomics.csv"), on="PatientID")
    days, died = table["Survival.time"], table["deadstatus.event"] == 1
    table = table[(days >= TWO_YEARS) | died].reset_index(drop=True)
    dead = (table["Survival.time"] < TWO_YEARS).to_numpy()
    columns = table.select_dtypes("number").drop(columns=["Survival.time", "deadstatus.event"])
    fit = make_pipeline(SimpleImputer(), StandardScaler(), LogisticRegression(C=0.001, max_iter=1000))
    folds = StratifiedKFold(5, shuffle=True, random_state=0)
    chance = cross_val_predict(fit, columns, dead, cv=folds, method="predict_proba")
    words = np.array(["alive", "dead"])
    who = {"case": table["PatientID"], "patient": table["PatientID"], "split": "test", "label": "all"}
    who |= {"covariate_gender": table["gender"], "covariate_age": table["age"]}
    stated = {"reference": words[dead.astype(int)], "predicted": words[(chance[:, 1] > 0.5).astype(int)]}
    chances = {"probability_alive": chance[:, 0], "probability_dead": chance[:, 1], "brier": (chance[:, 1] - dead) ** 2}
    return pd.DataFrame({**who, **stated, **chances})


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
    for one in data.get("real", []):
        few = f" Too few to judge, at least by some label: {', '.join(one['few'])}." if one["few"] else ""
        size = f"{one['name']}: {one['cases']} cases of {one['patients']} patients, {one['tested']} gaps"
        took = f"audited in {one['seconds']:.1f} s of one core"
        if not one["gaps"]:
            lines += ["", f"{size}, {took}: no two groups have the people to be compared.{few}"]
            continue
        took += f"; those with the least p, without a claim.{few}"
        columns = ("groups", "gap", "of", "value", "95 % interval", "p", "adjusted", "worst for")
        lines += ["", f"{size}, {took}", "", f"| {' | '.join(columns)} |", "|---" * len(columns) + "|"]
        for gap in one["gaps"]:
            numbers = [_figure(gap[name]) for name in ("low", "high", "p", "p_adjusted")]
            cells = [gap["attribute"], gap["metric"], gap["label"], _figure(gap["value"])]
            cells += [f"{numbers[0]} to {numbers[1]}", *numbers[2:], gap["worst"]]
            lines.append(f"| {' | '.join(cells)} |")
    return "\n".join(lines)


def _figure(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _cell(own: list[Mapping[str, Any]], name: str) -> str:
    values = [one[name] for one in own]
    return f"**{statistics.fmean(values):.3f}**: {', '.join(f'{value:.3f}' for value in values)}"


if __name__ == "__main__":
    main()
