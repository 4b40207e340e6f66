"""What inner folds bring and cost: a registered sensitivity beside the one that is reached, and the AUROC.

    python bench/inner_folds.py --threads 1 --minutes 10 --resume --record
    python bench/inner_folds.py pneumonia --seeds 0

Each seed draws 240 cases of a MedMNIST set's training part, which train and select: as many as 300 leave beside a test
part. Up to a thousand others of the training part are the test, so that what is reached is hardly luck. Each
draw is trained in the same minutes without inner folds and with the plan's own number of them; the rule
"sensitivity>=0.95" is registered. The sets' own test parts have no say.
"""

from __future__ import annotations

import argparse
import os
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from drawn_sets import drawn
from recorded import commit, record
from trainings import ROOT, add_options, keep, kept, spread, summary, trained

from isocenter.planning.rules.split_rules import INNER_FOLDS

RULE, ASKED, CASES, TESTED = "sensitivity>=0.95", 0.95, 240, 1000
# The sets of two classes, of which the rule is about the second.
SETS: Mapping[str, str] = {"pneumonia": "pneumoniamnist.npz", "adrenal": "adrenalmnist3d.npz"}
ILL = "1"


@dataclass(frozen=True)
class Shown:
    """One training. found: {metric: value}; because: why the threshold is what it is"""

    on: str
    seed: int
    folds: int
    problem: str = ""
    found: Mapping[str, float] = field(default_factory=dict)
    because: str = ""
    commit: str = ""


def shown(on: str, seed: int, folds: int, given: argparse.Namespace) -> Shown:
    """One training of one draw."""
    name = f"{on}-{seed}-{folds}"
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    file = SETS[on]
    data = drawn(given.data.resolve() / file, seed, given.out.resolve() / "data" / f"{on}-{seed}" / file, CASES, TESTED)
    words = [data, "--set", f"split.inner_folds={folds}", "--set", f"task.operating_point={RULE}"]
    taken = trained(name, words, seed, given)
    if taken.returncode:
        return Shown(on, seed, folds, f"failed with exit code {taken.returncode}: see logs/{name}.err")
    rows = summary(given.out / name)
    found = {row["metric"]: row["value"] for row in rows if row["label"] == "all"}
    of_class = {row["metric"]: row["value"] for row in rows if row["label"] == ILL}
    wanted = {"auroc": found["auroc"], **{key: of_class[key] for key in ("sensitivity", "specificity")}}
    plan = (given.out / name / "plan.yaml").read_text()
    because = "threshold found" if "are too few for a threshold" not in plan else "calls at 0.5"
    one = Shown(on, seed, folds, "", wanted, because, commit())
    keep(name, one, given)
    return one


def words_of(all_shown: Sequence[Shown]) -> str:
    """A line for each set and number of folds; failed trainings are named."""
    lines = ["| set | inner folds | seeds | threshold found | sensitivity | specificity | AUROC |", "|---" * 7 + "|"]
    for on in dict.fromkeys(one.on for one in all_shown):
        for folds in (0, INNER_FOLDS):
            own = [one for one in all_shown if (one.on, one.folds) == (on, folds) and not one.problem]
            if own:
                cells = [spread([one.found[key] for one in own]) for key in ("sensitivity", "specificity", "auroc")]
                kept_rules = sum(one.because == "threshold found" for one in own)
                lines.append(f"| {on} | {folds} | {len(own)} | {kept_rules} | {' | '.join(cells)} |")
    lines += [f"| {one.on} | {one.folds} | seed {one.seed} {one.problem} |" for one in all_shown if one.problem]
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("sets", nargs="*", metavar="SET", help=f"{', '.join(SETS)}; all without")
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "medmnist")
    add_options(parser, "inner_folds", minutes=10.0, of="of each training", seeds=(0, 1, 2))
    given = parser.parse_args()
    each = [
        shown(on, seed, folds, given) for on in given.sets or SETS for seed in given.seeds for folds in (0, INNER_FOLDS)
    ]
    text = words_of(each)
    print(text)
    if given.record:
        worst = statistics.fmean([abs(one.found["sensitivity"] - ASKED) for one in each if not one.problem])
        about = (
            f"{CASES} cases train and select, {RULE} is registered, {given.minutes:g} minutes on {given.threads} of "
            f"{os.cpu_count()} cores; mean (SD) over seeds on up to 1000 other cases of the set's training part. The "
            f"mean distance of all trainings from {ASKED} is {worst:.3f}."
        )
        record(
            "inner_folds", "What inner folds bring and cost", f"{about}\n\n{text}", {"runs": [asdict(n) for n in each]}
        )


if __name__ == "__main__":
    main()
