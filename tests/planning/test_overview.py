from __future__ import annotations

import re

import pytest
from ruamel.yaml import YAML

import hilum
import trained
from hilum.planning import PlannedTraining, plan_changes, plan_file, plan_text, typed_sections
from hilum.planning.plan_result import TOO_LARGE
from hilum.quality.dataset_examination import Examination
from hilum.values import Case, Dataset, Decision, Fingerprint, Plan, Problem


def test_a_plan_prints_as_a_table_with_its_predicted_memory(tmp_path):
    made = hilum.plan(trained.blobs(tmp_path / "data", 8), labels=trained.LABELS, device="cpu", threads=1)
    text = made.all_decisions
    first, *rest = text.splitlines()
    assert first.startswith("segmentation with unet in 3D, patch 16 x 16 x 16, batch 4")
    assert f"{made.plan['training.memory']:.2f} GiB of memory" in first
    assert [line for line in rest if line and not line.startswith(" ")] == list(made.plan.sections)
    assert max(map(len, text.splitlines())) <= 120
    silent = plan_text.silent_decisions(made.plan)
    for name, decision in made.plan:
        assert name.partition(".")[2] in text
        assert name in silent or decision.because.split()[0] in text


def test_what_is_off_takes_one_line_a_section_unless_a_person_turned_it_off(tmp_path):
    made = hilum.plan(trained.blobs(tmp_path / "data", 8), labels=trained.LABELS, device="cpu", threads=1).plan
    augmentation = plan_text.plan_overview(made, whole=True).partition("\naugmentation\n")[2]
    off = next(line for line in augmentation.splitlines() if line.startswith("  off"))
    assert "elastic" in off
    assert "noise" not in off.replace("dose_noise", "")
    by_hand = plan_text.plan_overview(plan_changes.with_settings(made, {"augmentation.noise": 0.0}))
    assert any(line.split()[:3] == ["noise", "0", "set"] for line in by_hand.splitlines())


def test_a_plan_shows_at_most_60_decisions_and_says_how_many_have_their_defaults(tmp_path):
    for data in (trained.blobs(tmp_path / "blobs", 8), trained.pictures(tmp_path / "pictures")):
        made = hilum.plan(data, device="cpu", threads=1)
        shown = repr(made).splitlines()
        rows = [line for line in shown if line.startswith("  ") and not line.startswith("   ")]
        assert len(rows) <= 60
        hidden = [name for name, _ in made.plan if typed_sections.is_default(made.plan, name)]
        [line] = [line for line in shown if "--all-decisions" in line]
        assert int(line.split()[0]) <= len(hidden)


def test_a_decision_by_hand_is_shown_and_is_no_default_even_with_the_value_of_one(tmp_path):
    made = hilum.plan(trained.blobs(tmp_path / "data", 8), labels=trained.LABELS, device="cpu", threads=1).plan
    by_hand = plan_changes.with_settings(made, {"training.optimiser": made["training.optimiser"]})
    assert typed_sections.is_default(made, "training.optimiser")
    assert not typed_sections.is_default(by_hand, "training.optimiser")
    assert "  optimiser " not in plan_text.plan_overview(made)
    assert "  optimiser " in plan_text.plan_overview(by_hand)
    entries = YAML(typ="safe").load(plan_file.plan_text(by_hand))
    assert entries["training"]["schedule"]["default"]
    assert "default" not in entries["training"]["optimiser"]


@pytest.mark.parametrize("make", [trained.blobs, trained.pictures])
def test_no_reason_only_repeats_its_value(make, tmp_path):
    plan = hilum.plan(make(tmp_path / "data"), device="cpu", threads=1).plan
    by_rules = [(name, one) for name, one in plan if one.because != "asked for"]
    assert [(name, one.because) for name, one in by_rules if len(news(name, one)) < 2] == []


# Words that tell nothing by themselves.
EMPTY = {
    "a",
    "an",
    "as",
    "be",
    "by",
    "default",
    "for",
    "has",
    "in",
    "is",
    "it",
    "its",
    "no",
    "of",
    "set",
    "that",
    "the",
}
EMPTY |= {"this", "to", "usual", "value"}


def news(name: str, decision: Decision) -> set[str]:
    """The words of a reason that neither its value nor its name has."""
    reason, value, own = (
        set(re.findall(r"[a-z0-9.+]+", text.lower().replace("_", " ")))
        for text in (decision.because, str(decision.value), name)
    )
    return reason - value - own - EMPTY


def test_a_plan_says_which_cases_are_left_out_and_where_to_read_why():
    dataset = Dataset(tuple(Case(f"c{n}", f"p{n}", {}, {}) for n in range(9)), patients_known=True)
    faults = (
        Problem.error("mask and image lie on different grids", ("c12", "c10")),
        Problem.error("holds values between whole numbers", ("c11",)),
        Problem.error("c13: it would take 900 windows", ("c13",), TOO_LARGE, "Correct its header"),
        Problem.warning("mask is empty", ("c1",)),
    )
    without = [Examination(dataset, Fingerprint(()), found) for found in (faults, faults[3:])]
    assert [PlannedTraining(Plan({}), one, {}).left_out for one in without] == [
        [
            "3 of 13 cases left out: c10, c11, c12 (`hilum check DATA` says why).",
            "left out: c13: it would take 900 windows. Correct its header.",
        ],
        [],
    ]
