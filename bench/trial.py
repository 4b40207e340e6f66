"""One whole trial on SIMULATED participants, from its plan to a report by CONSORT-AI: `make examples NAME=trial`.

    python bench/trial.py [--out examples/trial]

Twelve hospitals, large and small, read radiographs with or without a model; some outcomes are missing. The folder gets
the plan with its protocol, the encrypted list, the table of data, the results and the report.
"""

from __future__ import annotations

import argparse
import os
import secrets
import shutil
from pathlib import Path

import numpy as np
import pandas as pd

import hilum
from hilum.studies.concealment import KEY

SITES, PARTICIPANTS = 12, 40
# The share of pneumonias that are found without the model, what the model adds, and how hospitals differ.
USUAL, GAIN, SITES_DIFFER = 0.65, 0.15, 0.05
MISSING = 0.08
PLAN = """\
title = "A model as second reader of chest radiographs: a simulated trial of hospitals"
question = "Does the model raise the share of pneumonias that are found?"
version = "1.0"
design = "cluster"
subgroups = ["sex"]

[[arms]]
name = "usual"
text = "Radiographs are read as before"

[[arms]]
name = "model"
text = "Radiographs are read with the model's answer at hand"

[[endpoints]]
name = "found"
text = "The pneumonia is named in the report"
metric = "proportion"
direction = "higher"
primary = true
time_frame = "1 day"

[[endpoints]]
name = "minutes"
text = "Minutes of reading"
metric = "mean"
direction = "lower"
time_frame = "1 day"

[population]
criteria = "Adults with pneumonia by the reference standard"
minimum_age = "18 Years"

[strata]
size = ["large", "small"]

[size]
design = "proportions"
first = 0.8
second = 0.65
cluster = 40
icc = 0.01

[analysis]
covariates = ["age"]
per_protocol = "followed"
reason = "reason"

[clusters]
column = "hospital"

[clusters.members]
"""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", type=Path, default=Path("examples") / "trial")
    out = parser.parse_args().out
    os.environ.setdefault(KEY, secrets.token_hex(32))
    if (out / "study.toml").is_file():
        shutil.rmtree(out)
    out.mkdir(parents=True)
    names = [f"H{place:02}" for place in range(SITES)]
    members = [f'{name} = {{ size = "{"large" if place % 3 else "small"}" }}' for place, name in enumerate(names)]
    (out / "study.toml").write_text(PLAN + "\n".join(members) + "\n", encoding="utf-8")
    print(hilum.study_plan(out / "study.toml", out=out / "study"))
    print(hilum.study_lock(out / "study"))
    print(hilum.study_randomise(out / "study", method="cluster"))
    arms = {name: hilum.study_assign(out / "study", participant=name).arm for name in names}
    outcomes(arms).to_csv(out / "data.csv", index=False)
    print(hilum.study_analyse(out / "study", data=out / "data.csv", out=out / "result"))
    print(hilum.document(out / "result", names="consort-ai", out=out / "consort"))


def outcomes(arms: dict[str, str]) -> pd.DataFrame:
    """Participants of every hospital; the older are missing more often."""
    random, rows = np.random.default_rng(0), []
    for hospital, arm in arms.items():
        share = USUAL + GAIN * (arm == "model") + SITES_DIFFER * random.normal()
        for place in range(int(random.integers(PARTICIPANTS // 2, PARTICIPANTS * 3 // 2))):
            age = round(float(np.clip(random.normal(66, 12), 18, 95)))
            is_missing = random.random() < MISSING * age / 66
            rows.append(
                {
                    "participant": f"{hospital}-{place:03}",
                    "arm": arm,
                    "hospital": hospital,
                    "age": age,
                    "sex": random.choice(["female", "male"]),
                    "found": "" if is_missing else int(random.random() < share),
                    "reason": "no reference standard" if is_missing else "",
                    "minutes": round(float(random.gamma(4, 1.2) - 0.4 * (arm == "model")), 2),
                    "followed": int(random.random() < 0.95),
                }
            )
    return pd.DataFrame(rows)


if __name__ == "__main__":
    main()
