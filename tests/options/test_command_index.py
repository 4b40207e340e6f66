"""What every door needs of a command: the words of a call, and the same as a line and as Python."""

from __future__ import annotations

import shlex

import pytest

from hilum.errors import UsageError
from hilum.options import command_index

TYPED = {
    "plan": (
        {"data": "images", "minutes": 2, "labels": {"1": "anterior", "2": "posterior"}, "assignments": {
            "training.batch": 4, "network.name": "unet", "preprocessing.spacing": [1.0, 2.0]}},
        "hilum plan --minutes 2 --set training.batch=4 --set network.name=unet "
        "--set 'preprocessing.spacing=[1.0, 2.0]' --labels 1=anterior,2=posterior images",
    ),
    "predict": (
        {"model": "run", "inputs": ["a.nii.gz", "b.nii.gz"], "mirror": False, "overlay": True,
         "answers": ["seg", "sr"]},
        "hilum predict --answers seg,sr --no-mirror --overlay run a.nii.gz b.nii.gz",
    ),
    "register": (
        {"fixed": "-a.nii", "moving": "b.nii", "lesions": ["x.nii", "y.nii"], "initial": "-1"},
        "hilum register --initial=-1 --lesions x.nii y.nii -- -a.nii b.nii",
    ),
    "monitor": (
        {"table": "node", "bounds": [["ppv", "nodule", 0.6]]},
        "hilum monitor --bound ppv:nodule:0.6 node",
    ),
    "study_size": (
        {"design": "auroc", "assignments": ["auroc=0.8"]},
        "hilum study size --set auroc=0.8 auroc",
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", TYPED)
def test_values_as_python_has_them_become_the_line_that_a_person_types(name):
    values, line = TYPED[name]
    command = command_index.find_command(name)
    assert command.shell_line(values) == line
    assert shlex.split(line)[1:] == command.arguments(values)


def test_the_same_as_a_call_in_python_has_places_first_and_no_option_that_is_not_given():
    command = command_index.find_command("study_size")
    values = {"simulate": 5, "design": "auroc", "assignments": None}
    assert command.python_call(values) == "hilum.study_size('auroc', simulate=5)"


@pytest.mark.parametrize(
    ("values", "problem"),
    [
        ({"data": "a", "colour": "blue"}, "plan: colour: is no option"),
        ({"minutes": 3}, "plan: data: is missing"),
        ({"data": "a", "folds": -1}, "-1 is below 0"),
        ({"data": "a\0b"}, "a byte that no command line can"),
    ],
)
def test_what_no_command_line_can_say_is_refused(values, problem):
    with pytest.raises(UsageError, match=problem):
        command_index.find_command("plan").arguments(values)


def test_what_a_person_typed_is_a_value_of_python_in_the_call():
    values = {"run": "run", "out": "p", "backends": "onnx"}
    call = command_index.find_command("package").python_call(values)
    assert call == "hilum.package('run', out='p', backends=('onnx',))"
    values = {"data": "d", "assignments": ["training.batch=2"]}
    assert "{'training.batch': 2}" in command_index.find_command("plan").python_call(values)


def test_results_are_called_by_what_they_are_of():
    assert str(command_index.find_command("plan").default_out({"data": "a/hippocampus.tar"})) == "plan-hippocampus.yaml"
    assert command_index.find_command("study_size").default_out({"design": "auroc"}) is None
