from __future__ import annotations

import inspect

import nibabel
import numpy as np
import PIL.Image
import pytest

import hilum
import trained
from hilum import keywords
from hilum.errors import UsageError
from hilum.options.training import PlanOptions, TrainOptions
from hilum.planning import plan_file
from hilum.reading import ReadingOptions
from hilum.verbs import plan
from matrices import thinned

VERBS = sorted(name for name in hilum.__all__ if inspect.isfunction(getattr(hilum, name)))
# They take no keyword, or stand in rooms below, where Python's own message has to do.
WITHOUT = {"change_status", "describe_networks", "describe_weights", "list_networks", "load", "read_transform"}
WITHOUT |= {"doctor", "info", "operator", "write", "write_transform"}


@pytest.mark.parametrize("verb", thinned(8, [name for name in VERBS if name not in WITHOUT]))
def test_a_keyword_that_a_verb_does_not_know_is_a_type_error_that_names_the_right_one(verb):
    function = getattr(hilum, verb)
    known = [one.name for one in inspect.signature(function).parameters.values() if one.kind == one.KEYWORD_ONLY]
    known = known or ["volume"]
    with pytest.raises(TypeError, match=rf"^{verb}\(\) has no keyword '{known[0]}s'\. Use {known[0]}\.$"):
        function("nowhere", **{f"{known[0]}s": 1})
    with pytest.raises(TypeError, match=rf"^{verb}\(\) has no keyword 'zzz'\. Its keywords are .*{known[0]}"):
        function("nowhere", zzz=1)


@pytest.mark.parametrize(
    ("word", "keyword"),
    [("set", "assignments"), ("from_", "start"), ("all", "everything"), ("output", "out"), ("network", "assignments=")],
)
def test_a_word_of_the_command_line_leads_to_the_keyword(word, keyword):
    with pytest.raises(TypeError, match=f"Use {keyword}"):
        hilum.train("nowhere", **{word: 1})


@pytest.mark.parametrize("covariates", ["age,sex", ["age", "sex"]])
def test_covariates_are_named_as_text_or_as_a_list(covariates):
    assert plan.decisions_by_hand(PlanOptions("data", covariates=covariates)) == {"network.context": ["age", "sex"]}
    assert plan.decisions_by_hand(PlanOptions("data", covariates="all")) == {"network.context": "all"}
    assert plan.decisions_by_hand(PlanOptions("data", covariates="none")) == {"network.context": None}
    with pytest.raises(UsageError, match="conflicts with --set network"):
        plan.decisions_by_hand(PlanOptions("data", covariates="age", assignments={"network.context": "all"}))


def test_a_number_beyond_its_limits_is_refused_by_its_flag():
    with pytest.raises(UsageError, match=r"^--folds: 1 is below 2\."):
        hilum.train("nowhere", folds=1)
    with pytest.raises(UsageError, match=r"^--seed: \d+ is above \d+\."):
        hilum.evaluate("nowhere", "nowhere", seed=2**63)


@pytest.mark.parametrize(
    ("given", "decision", "value"),
    [
        ({"seed": np.arange(3)[1]}, "training.seed", 1),
        ({"minutes": np.float32(10)}, "training.minutes", 10),
        ({"folds": np.int64(3)}, "split.folds", 3),
        ({"assignments": {"training.learning_rate": np.logspace(-4, -2, 3)[1]}}, "training.learning_rate", 1e-3),
        ({"assignments": {"training.batch": np.array(4)}}, "training.batch", 4),
    ],
)
def test_numbers_of_numpy_are_the_numbers_that_they_are_also_in_the_file_of_a_plan(given, decision, value, tmp_path):
    data = trained.pictures(tmp_path / "data")
    hilum.plan(data, out=tmp_path / "plan.yaml", **given)
    planned = plan_file.read_plan(tmp_path / "plan.yaml")[decision]
    assert planned == pytest.approx(value)
    assert type(planned) in (bool, int, float)


FOREIGN = [np.zeros((4, 4)), PIL.Image.new("L", (4, 4)), nibabel.Nifti1Image(np.zeros((3, 3, 3)), np.eye(4)), 5, None]
WORDS = ["an array of NumPy", "an Image of PIL", "a Nifti1Image of nibabel", "5", "None"]


@pytest.mark.parametrize(
    "verb", ["check", "embed", "enhance", "evaluate", "explain", "plan", "predict", "read", "view"]
)
def test_what_a_keyword_does_not_take_is_named_in_a_sentence_with_what_it_takes(verb):
    before = ["model"] if verb in ("embed", "evaluate", "explain", "predict") else []
    takes_images = verb in ("embed", "enhance", "explain", "predict", "view")
    for value, words in zip(FOREIGN, WORDS, strict=True):
        is_array = takes_images and words not in ("5", "None")
        with pytest.raises(UsageError, match=rf"^(inputs|data|image|path): is {words}\. It takes a path") as refused:
            getattr(hilum, verb)(*before, value)
        assert ("hilum.image(array" in refused.value.remedy) is is_array
    if verb in ("embed", "enhance", "explain", "predict"):
        with pytest.raises(UsageError, match=r"^inputs: is a list with an array of NumPy\."):
            getattr(hilum, verb)(*before, [np.zeros((4, 4))])


@pytest.mark.parametrize(
    ("given", "sentence"),
    [
        ({"seed": 1.5}, "seed: is 1.5. It takes a whole number or None."),
        ({"folds": True}, "folds: is True. It takes a whole number or None."),
        ({"minutes": "10"}, "minutes: is a text. It takes a number or None."),
        ({"minutes": float("nan")}, "minutes: is nan. It takes a number or None."),
        ({"overwrite": 1}, "overwrite: is 1. It takes True or False."),
        ({"part": 3}, "part: is 3. It takes one of magnitude, real, imaginary, phase or None."),
        (
            {"assignments": {"a": np.zeros(2)}},
            "assignments: is a dict with an array of NumPy.",
        ),
    ],
)
def test_a_number_or_a_word_of_another_kind_is_refused_before_any_work(given, sentence):
    with pytest.raises(UsageError) as refused:
        hilum.train("nowhere", **given)
    assert str(refused.value).startswith(sentence)


def test_models_refuse_what_is_no_image_and_no_path(segmented):
    with pytest.raises(UsageError, match=r"^path: is an array of NumPy\. It takes a path\.$"):
        hilum.load(np.zeros(3))
    with pytest.raises(UsageError, match=r"^subject: is an array of NumPy\. It takes an Image or a Case"):
        hilum.load(segmented.out).predict(np.zeros((16, 16, 16)))


def test_one_item_is_taken_where_a_list_is():
    assert keywords.takes(TrainOptions)(lambda options: options.unlabelled)("data", unlabelled="more") == ("more",)


def test_a_call_that_lacks_an_argument_names_the_verb_and_what_it_takes():
    with pytest.raises(TypeError, match=r"^predict\(\): missing a required argument: 'inputs'\. It takes model,"):
        hilum.predict("nowhere")
    with pytest.raises(TypeError, match=r"^compare\(\): too many positional arguments\. It takes evaluations, "):
        hilum.compare("one", "other")


def test_help_in_python_has_a_line_for_each_keyword():
    lines = inspect.getdoc(hilum.train).splitlines()
    assert [line for line in lines if line.startswith("folds:")] == ["folds:         Number of cross-validation folds."]
    assert str(inspect.signature(hilum.train)).startswith("(data: ")


@pytest.mark.parametrize("verb", ["check", "evaluate", "plan", "predict", "train"])
@pytest.mark.parametrize(
    ("near", "right"), [("label", "labels"), ("columns", "column"), ("fillmissing", "fill_missing")]
)
def test_reading_options_are_among_the_keywords(verb, near, right):
    with pytest.raises(TypeError, match=f"Use {right}"):
        getattr(hilum, verb)("nowhere", "nowhere", **{near: 1})


@pytest.mark.parametrize(
    "labels",
    [
        "1=anterior,2=posterior",
        {1: "anterior", 2: "posterior"},
        {"1": "anterior", "2": "posterior"},
        {"anterior": 1, "posterior": 2},
        {"anterior": [1], "posterior": (2,)},
    ],
)
def test_labels_can_be_text_or_a_mapping_either_way_round(labels):
    assert ReadingOptions(labels=labels).labels == "1=anterior,2=posterior"


def test_labels_of_overlapping_structures_and_of_numbered_objects_can_be_a_mapping():
    assert ReadingOptions(labels={"whole": [1, 2], "core": 2}).labels == "1+2=whole,2=core"
    assert ReadingOptions(labels={"each": "nucleus"}).labels == "each=nucleus"
    assert ReadingOptions(labels=None).labels is None


@pytest.mark.parametrize("labels", [{1: "left, upper"}, {"a=b": 1}, {1: 2}])
def test_labels_that_text_cannot_hold_are_refused(labels):
    with pytest.raises(UsageError, match=r"comma or an equals sign|names no label"):
        ReadingOptions(labels=labels)


@pytest.mark.parametrize(
    "column",
    ["image=filename,label=finding", ["image=filename", "label=finding"], {"image": "filename", "label": "finding"}],
)
def test_columns_can_be_text_several_texts_or_a_mapping(column):
    assert ReadingOptions(column=column).column == {"image": "filename", "label": "finding"}


def test_a_column_without_a_value_is_refused():
    with pytest.raises(UsageError, match="'filename' is not of the form name=value"):
        ReadingOptions(column="filename")


@pytest.mark.parametrize("options", [{"part": "whole"}, {"prefer": "qfrom"}])
def test_a_part_or_form_that_does_not_exist_is_refused_by_everything_that_reads(options, tmp_path):
    [(name, value)] = options.items()
    path = tmp_path / "image.nii.gz"
    path.touch()
    for read in (hilum.read, hilum.view):
        with pytest.raises(UsageError, match=f"^--{name}: there is no '{value}'. Choose "):
            read(path, **options)
    with pytest.raises(UsageError, match=f"^--{name}: there is no '{value}'"):
        hilum.check(tmp_path, **options)
