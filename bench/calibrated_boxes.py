"""Scores of boxes on blood smears: how far they can be believed, and whether covering boxes miss what they may.

    python bench/calibrated_boxes.py --threads 1 --steps 300 --record

BCCD by its own parts; of those that would train, 40 images only set the covering scores (`split.calibration`), so that
these hold exactly. A temperature of 1 would leave nothing to calibrate.
"""

from __future__ import annotations

import argparse
from collections.abc import Mapping, Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path

from calibrated_classes import BEFORE, CALIBRATED, PERFECT
from recorded import commit, record
from swayed import marked
from trainings import ROOT, add_options, keep, kept, spread, summary, trained

from isocenter.planning import plan_file

HELD = 40
METRICS = ("ap50", "temperature", "ece_equal_mass", "log_loss", "brier")
COVERED = ("covering_missed", "covering_false")


@dataclass(frozen=True)
class Shown:
    """One training. found: {metric: value}, those before calibration with an end; method: which calibration it took

    by_class: {class: share of its boxes that covering boxes miss}; least: {class: the score from which on they count}
    """

    seed: int
    problem: str = ""
    method: str = ""
    risk: float = 0.0
    found: Mapping[str, float] = field(default_factory=dict)
    by_class: Mapping[str, float] = field(default_factory=dict)
    least: Mapping[str, float] = field(default_factory=dict)
    commit: str = ""


def shown(seed: int, given: argparse.Namespace) -> Shown:
    """One training of BCCD."""
    name = f"cells-{seed}"
    if (before := kept(name, given)) is not None:
        return Shown(**before)
    words = [given.data.resolve(), "--modality", "microscopy", "--set", f"split.calibration={HELD}"]
    taken = trained(name, words, seed, given)
    if taken.returncode:
        return Shown(seed, f"failed with exit code {taken.returncode}: see logs/{name}.err")
    rows = summary(given.out / name)
    over_all = {row["metric"]: row for row in rows if row["label"] == "all" and row["value"] is not None}
    wanted = {*COVERED, *(f"{metric}{end}" for metric in METRICS for end in ("", BEFORE))}
    found = {metric: row["value"] for metric, row in over_all.items() if metric in wanted}
    if perfect := CALIBRATED.search(over_all["ece_equal_mass"]["method"]):
        found[PERFECT] = float(perfect[1])
    missed = {row["label"]: row["value"] for row in rows if row["metric"] == COVERED[0] and row["label"] != "all"}
    plan = plan_file.read_plan(given.out / name / "plan.yaml")
    limits = plan["task.covering"]["thresholds"]
    least = {label: 0.0 if limit is None else 1 - limit for label, limit in limits.items()}
    one = Shown(seed, "", plan["task.calibration"]["method"], plan["task.risk"], found, missed, least, commit())
    keep(name, one, given)
    return one


def words_of(all_shown: Sequence[Shown]) -> str:
    """Scores now and before calibration, and what covering boxes miss."""
    good = [one for one in all_shown if not one.problem]
    methods = ", ".join(one.method for one in good)
    lines = [
        "| scores | AP50 | temperature | ECE, equal mass | of a perfect model | log loss | Brier |",
        "|---" * 7 + "|",
    ]
    for end, title in (("", f"as stated ({methods})"), (BEFORE, "before calibration")):
        cells = {metric: _spread([one.found.get(f"{metric}{end}") for one in good]) for metric in (*METRICS, PERFECT)}
        shown_cells = ("ap50", "temperature", "ece_equal_mass", PERFECT, "log_loss", "brier")
        lines.append(f"| {title} | {' | '.join(cells[metric] for metric in shown_cells)} |")
    lines += ["", "| covering boxes of | missed | from a score of |", "|---" * 3 + "|"]
    for label in dict.fromkeys(name for one in good for name in one.by_class):
        missed, least = ([getattr(one, key).get(label) for one in good] for key in ("by_class", "least"))
        lines.append(f"| {label} | {_spread(missed)} | {_spread(least)} |")
    false = _spread([one.found.get(COVERED[1]) for one in good])
    lines.append(
        f"| all, with {false} false ones an image | {_spread([one.found.get(COVERED[0]) for one in good])} | |"
    )
    return "\n".join([*lines, *(f"\nSeed {one.seed} {one.problem}" for one in all_shown if one.problem)])


def _spread(values: Sequence[float | None]) -> str:
    known = [value for value in values if value is not None]
    return spread(known) if known else ""


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--data", type=Path, default=ROOT.parent / "shared" / "data" / "bccd")
    add_options(parser, "calibrated_boxes", minutes=None, of="of each training")
    given = parser.parse_args()
    each = [shown(seed, given) for seed in given.seeds]
    text = words_of(each)
    print(text)
    if given.record:
        long = f"{given.steps} steps" if given.steps else f"{given.minutes:g} minutes"
        commits = ", ".join(dict.fromkeys(one.commit for one in each if one.commit))
        each_seed = f"{long} each on one core, seeds {', '.join(map(str, given.seeds))}; mean (SD) over them"
        about = (
            f"{marked('bccd', 'BCCD')} by its own parts, {each_seed}. Covering boxes may miss {each[0].risk:g} of a "
            "class's boxes in an image on average; the scores from which on they count were set by "
            f"{HELD} images that decided nothing else. Commits: {commits}."
        )
        record("calibrated_boxes", "Calibrated boxes", f"{about}\n\n{text}", {"runs": [asdict(one) for one in each]})


if __name__ == "__main__":
    main()
