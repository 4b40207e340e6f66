from __future__ import annotations

import pytest

import hilum
import trained
from hilum.planning import plan_changes, plan_text
from hilum.values import Decision, Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Plan:
    data = trained.blobs(tmp_path_factory.mktemp("text") / "data", 8)
    return hilum.plan(data, labels=trained.LABELS, device="cpu", threads=1).plan


def test_every_decision_is_a_line_with_its_value_its_reason_and_its_source(made):
    lines = plan_text.decision_lines(made).splitlines()
    assert [line.partition(" = ")[0] for line in lines] == list(made.names)
    for line, (name, decision) in zip(lines, made, strict=True):
        assert decision.because in line and decision.source in line, name


def test_sizes_read_as_sizes(made):
    text = plan_text.decision_lines(made)
    assert "training.patch = 16 x 16 x 16: the median of 5 training cases is" in text
    assert "preprocessing.spacing = 1.118 x 1.1281 x 1.3086: " in text


def test_of_pictures_all_reasons_speak_of_pixels(made):
    pictures = made.with_decision("preprocessing.ndim", Decision(2, "it is a plan for pictures"))
    assert "voxel" in plan_text.decision_lines(made) and "voxel" not in plan_text.decision_lines(pictures).lower()


def test_what_a_person_set_is_never_silent_also_where_it_is_none(made):
    assert "augmentation.motion" in plan_text.silent_decisions(made)
    by_hand = plan_changes.with_settings(made, {"training.weight_decay": 0.0, "augmentation.motion": 0.0})
    assert plan_text.silent_decisions(by_hand).isdisjoint({"training.weight_decay", "augmentation.motion"})
    assert "training.weight_decay = 0: set by hand" in plan_text.decision_lines(by_hand).splitlines()


def test_what_is_off_is_silent_unless_its_reason_is_worth_reading_or_0_is_a_value(made):
    silent = plan_text.silent_decisions(made)
    assert {"augmentation.shear", "augmentation.mixup", "preprocessing.frames", "preprocessing.shape"} <= silent
    assert silent.isdisjoint({"split.inner_folds", "augmentation.flips", "task.postprocessing"})
    assert made["training.seed"] == 0 and "training.seed" not in silent


def test_what_has_no_effect_is_silent_unless_a_person_set_it_or_what_it_belongs_to_is_on(made):
    idle = {"split.inner_share", "preprocessing.aspect", "augmentation.cutout_count", "augmentation.accidents"}
    assert idle <= plan_text.silent_decisions(made)
    with_folds = made.with_decision("split.inner_folds", Decision(3, "for a test"))
    assert "split.inner_share" not in plan_text.silent_decisions(with_folds)
    by_hand = plan_changes.with_settings(made, {"split.inner_share": 0.3, "augmentation.motion": 2.0})
    assert plan_text.silent_decisions(by_hand) & idle == {"preprocessing.aspect", "augmentation.cutout_count"}


@pytest.mark.parametrize(
    ("value", "words"),
    [
        (4.0, "4"),
        ([1, 2], "(1, 2)"),
        ([{"name": "liver", "value": 1}], "liver"),
        ({"width": 16}, "width 16"),
        (None, "none"),
        ([], "none"),
        (True, "yes"),
        (False, "no"),
    ],
)
def test_values_read_as_a_person_would_write_them(value, words):
    assert plan_text.words_of_value(value) == words


def test_the_verb_prints_each_decision_when_asked(cli, tmp_path):
    data = trained.blobs(tmp_path / "data", 8)
    done = cli("plan", data, "--labels", trained.LABELS, "--device", "cpu", "--out", tmp_path / "p.yaml", "--explain")
    assert done.code == 0
    assert "training.patch = 16 x 16 x 16: the median" in done.out
    assert (tmp_path / "p.yaml").is_file()
