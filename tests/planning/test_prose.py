from __future__ import annotations

import re

import pytest

import isocenter
import trained
from isocenter.planning import plan_changes, plan_prose
from isocenter.planning.plan_prose import TITLES
from isocenter.planning.typed_sections import OPTIONAL
from isocenter.values import Decision, Plan


@pytest.fixture(scope="module")
def made(tmp_path_factory) -> Plan:
    data = trained.blobs(tmp_path_factory.mktemp("prose") / "data", 8)
    return isocenter.plan(data, labels=trained.LABELS, device="cpu", threads=1).plan


def test_every_section_is_a_paragraph_in_the_order_in_which_the_data_go(made):
    paragraphs = plan_prose.write_prose(made).split("\n\n")
    planned = [title for section, title in TITLES.items() if section not in OPTIONAL]
    assert [one.partition(".")[0] for one in paragraphs] == planned


def test_every_decision_is_stated_with_its_reason_unless_it_is_off(made):
    text, sentences = plan_prose.write_prose(made), plan_prose.sentences_of(made)
    for name, decision in made:
        own = sentences.get(name)
        if (
            own
            and not plan_prose.is_silent(decision, own)
            and (own.without or not plan_prose.is_off(decision.value, own))
        ):
            assert decision.because.rstrip(".") in text, name
        else:
            assert name.partition(".")[2].replace("_", " ") in text.lower(), name


def test_sizes_read_as_sizes_and_shares_as_percent(made):
    text = plan_prose.write_prose(made)
    assert "The patch is 16 x 16 x 16 voxels, because the median of 5 training cases is" in text
    assert "33 % of the patches are centred on a structure" in text
    assert "Images are resampled to 1.118 x 1.1281 x 1.3086 mm" in text


def test_sentences_are_whole(made):
    for paragraph in plan_prose.write_prose(made).split("\n\n"):
        assert paragraph.endswith(".")
        assert not re.search(r"\{|\}|None|because because|\.\.", paragraph), paragraph


def test_a_number_stands_before_its_unit_and_apart_from_a_label_that_is_a_number_too(made):
    text = plan_prose.write_prose(
        plan_changes.with_settings(made, {"task.labels": [{"value": 1, "name": "1"}], "task.tolerance": {"1": 2.0}})
    )
    assert "in mm (in voxels where the spacing is unknown) is 2 for 1, as set by hand." in text


def test_a_strength_is_stated_in_its_unit(made):
    text = plan_prose.write_prose(plan_changes.with_settings(made, {"augmentation.motion": 2.0}))
    assert "Contrast changes by up to 25 %, because" in text
    assert "Brightness moves by up to 0.15 standard deviations of the image, because" in text
    assert "Motion turns by up to 2 degrees and shifts by up to 2 voxels, as set by hand." in text


def test_of_pictures_all_sentences_and_reasons_speak_of_pixels(made):
    pictures = made.with_decision("preprocessing.ndim", Decision(2, "it is a plan for pictures"))
    assert "The patch is 16 x 16 x 16 pixels, because" in plan_prose.write_prose(pictures)
    assert "voxel" in plan_prose.write_prose(made) and "voxel" not in plan_prose.write_prose(pictures).lower()
    assert not any("voxel" in decision.because for _, decision in pictures)


def test_what_a_person_set_is_stated_as_such_also_where_it_is_none(made):
    assert "There is no weight decay, as set by hand." in plan_prose.write_prose(
        plan_changes.with_settings(made, {"training.weight_decay": 0.0})
    )
    assert "The batch size is 2, as set by hand." in plan_prose.write_prose(
        plan_changes.with_settings(made, {"training.batch": 2})
    )


def test_what_is_off_is_listed_without_reasons(made):
    text = plan_prose.write_prose(made)
    assert re.search(r"Off or not set: shear, elastic, .*, mixup, cutmix", text)
    assert "Off or not set: absent, frames, interval, time unit, shape, around, stain, cascade, prompts." in text
    assert "still images" not in text


def test_what_has_no_effect_is_named_without_reasons_unless_a_person_set_it_or_what_it_belongs_to_is_on(made):
    text = plan_prose.write_prose(made)
    assert "Inner folds get" not in text
    assert "Without effect here: inner share." in text
    assert "Without effect here: aspect." in text
    assert "Without effect here: cutout count, accidents." in text
    assert "Inner folds get 50 % of the minutes, because" in plan_prose.write_prose(
        made.with_decision("split.inner_folds", Decision(3, "for a test"))
    )
    assert "Inner folds get 30 % of the minutes, as set by hand." in plan_prose.write_prose(
        plan_changes.with_settings(made, {"split.inner_share": 0.3})
    )
    moving = plan_prose.write_prose(plan_changes.with_settings(made, {"augmentation.motion": 2.0}))
    assert "changes 5 % of the samples, because such artefacts are rare" in moving


def test_what_is_chosen_later_is_no_choice_yet(made):
    text = plan_prose.write_prose(made)
    assert "The method of calibration is chosen after training, because auto takes the simplest" in text
    assert "The method of uncertainty is chosen for each model, because" in text
    assert "method auto" not in text
    by_hand = plan_prose.write_prose(plan_changes.with_settings(made, {"task.calibration_method": "temperature"}))
    assert "Probabilities are calibrated by the method temperature, as set by hand." in by_hand


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
    assert plan_prose.words_of_value(value) == words


def test_the_verb_prints_the_prose_when_asked(cli, tmp_path):
    data = trained.blobs(tmp_path / "data", 8)
    done = cli("plan", data, "--labels", trained.LABELS, "--device", "cpu", "--out", tmp_path / "p.yaml", "--explain")
    assert done.code == 0
    assert "The patch is 16 x 16 x 16 voxels, because" in done.out
    assert (tmp_path / "p.yaml").is_file()
