from __future__ import annotations

import inspect

import pytest

import hilum
from hilum.errors import UsageError
from hilum.options.training import PlanOptions
from hilum.reading import ReadingOptions
from hilum.verbs import plan
from matrices import thinned

VERBS = sorted(name for name in hilum.__all__ if inspect.isfunction(getattr(hilum, name)))
# They take no keyword, or stand in rooms below, where Python's own message has to do.
WITHOUT = {"change_status", "describe_networks", "describe_weights", "list_networks", "load", "read_transform"}
WITHOUT |= {"operator", "write", "write_transform"}


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
