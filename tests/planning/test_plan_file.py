from __future__ import annotations

import re
from pathlib import Path

import pytest

import hilum
import trained
from hilum.errors import PlanError
from hilum.planning import plan_checks, plan_file
from hilum.values import BY_HAND, Decision, Plan
from matrices import thinned


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Plan:
    data = trained.blobs(tmp_path_factory.mktemp("planned") / "data", 8)
    return hilum.plan(data, labels=trained.LABELS, device="cpu", threads=1).plan


@pytest.fixture
def edited(made, tmp_path):
    """A function that replaces text in the plan's file and gives (path, line of the replacement)."""

    def edit(old: str, new: str) -> tuple[Path, int]:
        text = plan_file.plan_text(made)
        assert len(re.findall(old, text, re.MULTILINE)) == 1, old
        path = tmp_path / "plan.yaml"
        path.write_text(re.sub(old, new, text, flags=re.MULTILINE))
        before = text[: re.search(old, text, re.MULTILINE).start()]
        return path, before.count("\n") + 1

    return edit


def test_a_plan_comes_back_from_its_file_as_it_was(made, tmp_path):
    (tmp_path / "plan.yaml").write_text(plan_file.plan_text(made))
    back = plan_file.read_plan(tmp_path / "plan.yaml")
    assert plan_file.plan_text(back) == plan_file.plan_text(made)
    assert plan_checks.checked_settings(back) == plan_checks.checked_settings(made)
    assert (back.data, back.data_hash, back.options) == (made.data, made.data_hash, made.options)


def test_every_decision_has_a_reason(made):
    for name, decision in made:
        assert decision.because.strip(), name


def test_an_edited_value_reads_set_by_hand_and_the_others_keep_their_reasons(made, edited):
    path, _ = edited(r"learning_rate: {value: 0.004", "learning_rate: {value: 0.001")
    back = plan_file.read_plan(path)
    assert back["training.learning_rate"] == 0.001
    for name, decision in back:
        expected = BY_HAND if name == "training.learning_rate" else made.decision(name).because
        assert decision.because == expected


def test_a_value_written_otherwise_is_not_edited(made, edited):
    path, _ = edited(r"learning_rate: {value: 0.004", "learning_rate: {value: 4.0e-3")
    assert plan_file.read_plan(path).decision("training.learning_rate") == made.decision("training.learning_rate")


@pytest.mark.parametrize(
    ("old", "new", "followed"),
    thinned(
        1,
        [
            (r"(?<=flips:\n    )value: \[\](?=\n    because: (?!training))", "value: [1]", {"inference.flips": [1]}),
            (
                r"optimiser: {value: adamw",
                "optimiser: {value: sgd",
                {"training.learning_rate": 0.01, "training.schedule": "poly"},
            ),
            (r"^  folds: {value: 0", "  folds: {value: 4", {"split.inner_folds": 0, "split.calibration": 0}),
        ],
    ),
)
def test_what_follows_from_an_edited_value_follows_it_as_on_the_command_line(made, edited, old, new, followed):
    path, _ = edited(old, new)
    back = plan_file.read_plan(path)
    assert {name: back[name] for name in followed} == followed
    (again := path.with_name("again.yaml")).write_text(plan_file.plan_text(back))
    assert plan_file.plan_text(plan_file.read_plan(again)) == plan_file.plan_text(back)


WRONG = {
    "a type": (r"^  batch: {value: 4", "  batch: {value: four", "training.batch"),
    "an impossible value": (r"warmup: {value: 0.05", "warmup: {value: 3", "training.warmup"),
    "an unknown network": (r"name: {value: unet", "name: {value: transformer", "network.name"),
    "an unknown task": (r"name: {value: segmentation", "name: {value: reading", "task.name"),
    "an unknown name": (r"(?<=^)  weight_decay:", "  weight_decai:", "weight_decai"),
    "an unknown name where any could stand": (r"^  tolerance:", "  tolerances:", "tolerance"),
    "a missing value": (r"^  batch: {value: 4", "  batch: {walue: 4", "training.batch"),
    "a date for a number": (r"^  batch: {value: 4", "  batch: {value: 2020-01-01", "training.batch"),
    "a section that is a number": (r"^evaluation:\n(  .*\n)+", "evaluation: 5\n", "evaluation"),
    "options that are a number": (r"^options: .*", "options: 5", "options"),
    "another version": (r"^hilum_plan: 1", "hilum_plan: 7", "version 7"),
    "an unknown optimiser": (r"optimiser: {value: adamw", "optimiser: {value: lion", "training.optimiser"),
    "an unknown schedule": (r"schedule: {value: cosine", "schedule: {value: steps", "training.schedule"),
    "no validation before the end": (r"early_stop: {value: null", "early_stop: {value: 0", "training.early_stop"),
    "an unknown way of sampling": (r"sampling: {value: natural", "sampling: {value: odd", "training.sampling"),
    "sampling by class without classes": (
        r"sampling: {value: natural",
        "sampling: {value: balanced",
        "only whole images are sampled class by class",
    ),
    "less than no memory": (r"^  memory: {value: ", "  memory: {value: -", "training.memory"),
    "memory that is wished for": (r"^  memory: {value: ", "  memory: {value: 1", "it follows from other decisions"),
    "a split by its name": (r"method: {value: sampled", "method: {value: own", "split.method"),
    "one fold": (r"^  folds: {value: 0", "  folds: {value: 1", "split.folds"),
    "folds that are fewer than none": (r"^  folds: {value: 0", "  folds: {value: -2", "split.folds"),
    "weights that are not there": (
        r"pretrained: {value: null",
        "pretrained: {value: /no/such/file",
        "network.pretrained",
    ),
    "weights that nobody has published": (
        r"pretrained: {value: null",
        "pretrained: {value: auto",
        "network.pretrained",
    ),
    "an unknown way to a shape": (r"aspect: {value: stretch", "aspect: {value: fold", "preprocessing.aspect"),
    "a crop without a shape": (r"aspect: {value: stretch", "aspect: {value: crop", "preprocessing.aspect"),
    "a border that leaves nothing": (r"border: {value: 0.0", "border: {value: 0.5", "preprocessing.border"),
    "an axis too many": (
        r"(?<=flips:\n    )value: \[\](?=\n    because: (?!training))",
        "value: [3]",
        "augmentation.flips",
    ),
    "an axis too many at test": (
        r"(?<=flips:\n    )value: \[\](?=\n    because: training)",
        "value: [7]",
        "inference.flips",
    ),
    "a strength below nothing": (r"bias_field: {value: 0.0", "bias_field: {value: -0.1", "augmentation.bias_field"),
    "mixed volumes": (r"mixup: {value: 0.0", "mixup: {value: 0.2", "augmentation.mixup"),
    "no number of strides": (r"(?<=inference:\n  patch:\n    )value: .*", "value: [15, 15, 15]", "inference.patch"),
}


# What is refused by the same rule as another edit.
ALIKE = {
    "an unknown schedule",
    "an unknown way of sampling",
    "an unknown way to a shape",
    "folds that are fewer than none",
    "a date for a number",
    "a strength below nothing",
    "an axis too many at test",
    "less than no memory",
    "no validation before the end",
}


@pytest.mark.parametrize(
    ("old", "new", "message"),
    thinned(
        8, [pytest.param(*edit, id=name, marks=[pytest.mark.whole] * (name in ALIKE)) for name, edit in WRONG.items()]
    ),
)
def test_a_wrong_edit_is_refused_with_file_and_line(edited, old, new, message):
    path, line = edited(old, new)
    with pytest.raises(PlanError) as refused:
        plan_file.read_plan(path)
    assert message in str(refused.value)
    assert refused.value.where == f"{path}, line {line}"
    assert refused.value.remedy


@pytest.mark.parametrize("text", ["hilum_plan: [1", "a: b: c", "a: 1\na: 2", "x: !!python/object:os.system {}"])
def test_what_is_not_yaml_is_refused_by_name(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError, match=re.escape(str(tmp_path / "plan.yaml"))):
        plan_file.read_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize("text", ["", "5", "[1, 2]", "colour: blue"])
def test_yaml_that_is_no_plan_is_refused(tmp_path, text):
    (tmp_path / "plan.yaml").write_text(text)
    with pytest.raises(PlanError, match="is not a Hilum plan"):
        plan_file.read_plan(tmp_path / "plan.yaml")


LAUGHS = "a0: &a0 [lol, lol]\n" + "".join(f"a{n}: &a{n} [{', '.join([f'*a{n - 1}'] * 9)}]\n" for n in range(1, 12))
TRICKS = {
    "an alias": ("options: {}\nb: &b [1]\nc: *b\n", 3),
    "a merge": ("options: &b {}\nc:\n  <<: *b\n", 2),
    "an anchor on a value": ("c: &b 5\n", 2),
    "laughs by the million": (LAUGHS, 2),
    "nesting": ("c:\n  d: " + "[" * 20 + "]" * 20, 3),
    "nesting without end": ("c: " + "[" * 100_000, 2),
}


@pytest.mark.parametrize(("text", "line"), TRICKS.values(), ids=TRICKS)
def test_aliases_and_deep_nesting_are_refused_with_their_line(tmp_path, text, line):
    path = tmp_path / "plan.yaml"
    path.write_text(f"hilum_plan: 1\n{text}")
    with pytest.raises(PlanError, match=r"alias|deeper than 20 levels") as refused:
        plan_file.read_plan(path)
    assert refused.value.where == f"{path}, line {line}"


def test_decisions_that_share_a_list_are_written_one_by_one(made, tmp_path):
    axes = [0, 1]
    shared = made
    for name in ("augmentation.flips", "inference.flips"):
        shared = shared.with_decision(name, Decision(axes, "they look alike mirrored"))
    (tmp_path / "plan.yaml").write_text(plan_file.plan_text(shared))
    back = plan_file.read_plan(tmp_path / "plan.yaml")
    assert back["augmentation.flips"] == back["inference.flips"] == axes


def test_a_plan_of_a_megabyte_is_none(tmp_path):
    (tmp_path / "plan.yaml").write_text("hilum_plan: 1\n" + "# no end\n" * 200_000)
    with pytest.raises(PlanError, match="larger than any plan"):
        plan_file.read_plan(tmp_path / "plan.yaml")


@pytest.mark.parametrize(
    "text", ["&a [1, *a]", "[&a x, *a]", "[" * 21 + "]" * 21, "[" * 5000, "9" * 5000, "x" * 20_000]
)
def test_a_value_on_the_command_line_cannot_grow(text):
    with pytest.raises(PlanError) as refused:
        plan_file.parse_value(text)
    assert refused.value.where == "--set" and len(str(refused.value)) < 200


def test_a_decision_that_was_taken_out_is_missed(edited):
    path, _ = edited(r"^split:\n(  .*\n)+", "split: {}\n")
    with pytest.raises(PlanError, match=r"split\."):
        plan_file.read_plan(path)


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("3", 3),
        ("1e-3", 0.001),
        ("true", True),
        ("[32, 32]", [32, 32]),
        ("32,32", [32, 32]),
        ("unet", "unet"),
        ("null", None),
        ("", None),
    ],
)
def test_a_value_on_the_command_line_is_read_as_in_the_file(text, value):
    assert plan_file.parse_value(text) == value


@pytest.mark.parametrize("name", ["training.selection", "evaluation.primary"])
def test_a_metric_that_the_task_does_not_have_is_refused(made, name):
    with pytest.raises(PlanError, match="dice"):
        plan_checks.checked_settings(made.with_decision(name, Decision("banana", BY_HAND)))
