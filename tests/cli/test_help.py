from __future__ import annotations

import inspect
import re
from pathlib import Path
from typing import get_args

import pytest

import hilum
import trained
from hilum.cli import commands
from hilum.files import format_options
from hilum.layouts.layout import LAYOUTS
from hilum.options import command_index
from hilum.prediction.answers import FORMATS
from hilum.registration.engine import TransformKind
from hilum.registration.linear import Initial
from hilum.registration.similarity_measures import SimilarityName
from hilum.runtime.package import backends
from hilum.tasks import index
from hilum.values.dataset_cases import SPLITS
from hilum.verbs.comparison_tests import CORRECTIONS, TESTS
from hilum.verbs.ensemble import WEIGHTINGS

COMMANDS = {one.words: commands.typed_function(one) for one in command_index.COMMANDS}


def helps(verb: str) -> dict[str, str]:
    """{parameter: its help text}"""
    parameters = inspect.signature(COMMANDS[verb], eval_str=True).parameters.values()
    return {one.name: get_args(one.annotation)[1].help for one in parameters}


def words(text: str) -> set[str]:
    return set(re.findall(r"[\w.-]+", text))


VALUES = [
    ("predict", "format", {"auto", *FORMATS}),
    ("predict", "backend", {"auto", *backends.BACKENDS}),
    ("evaluate", "split", SPLITS),
    ("check", "layout", LAYOUTS),
    ("train", "task", index.TASKS),
    ("ensemble", "weights", WEIGHTINGS),
    ("compare", "test", TESTS),
    ("compare", "correction", CORRECTIONS),
    ("register", "similarity", ("auto", *get_args(SimilarityName))),
    ("register", "initial", ("auto", *get_args(Initial))),
    ("register", "transform", get_args(TransformKind)),
    ("convert", "part", get_args(format_options.Part)),
    ("convert", "prefer", ("sform", "qform")),
]


@pytest.mark.parametrize(("verb", "flag", "values"), VALUES, ids=[f"{verb} --{flag}" for verb, flag, _ in VALUES])
def test_a_help_text_lists_every_value_that_the_code_accepts(verb, flag, values):
    named = {word.strip(".") for word in words(helps(verb)[flag])}
    assert set(values) <= named


def test_a_flag_that_several_verbs_have_has_one_text_unless_they_write_other_files():
    texts: dict[str, set[str]] = {}
    for verb in COMMANDS:
        for flag, text in helps(verb).items():
            if flag == "labels" and verb.startswith("register"):  # a file of labels, where others name their values
                continue
            texts.setdefault(flag, set()).add(text)
    for flag in ("layout", "labels", "patient", "column", "modality", "part", "prefer", "task", "threads", "json"):
        assert len(texts[flag]) == 1, flag


def test_the_default_file_in_a_help_text_is_the_one_that_is_written(cli, tmp_path, monkeypatch):
    data = trained.pictures(tmp_path / "data", 30)
    monkeypatch.chdir(tmp_path)
    for verb, given, name in (
        ("plan", data, "plan-<name>.yaml"),
        ("view", data / next(data.rglob("*.png")), "view-<name>.html"),
    ):
        assert f"./{name}" in helps(verb)["out"]
        assert cli(verb, given).code == 0
        assert (tmp_path / name.replace("<name>", given.stem)).is_file()


def test_demo_takes_as_long_by_make_by_the_command_line_and_in_python():
    by_make = re.search(r"MINUTES \?= (\S+)", (Path(__file__).parents[2] / "Makefile").read_text(encoding="utf-8"))
    by_hand, in_python = (inspect.signature(one).parameters["minutes"] for one in (COMMANDS["demo"], hilum.demo))
    assert float(by_make[1]) == by_hand.default == in_python.default


def test_a_help_text_is_a_sentence_without_riddles():
    for verb in COMMANDS:
        for flag, text in helps(verb).items():
            assert text.endswith("."), (verb, flag)
            assert not words(text) & {"told", "said", "heard", "beside", "alone", "together"}, (verb, flag)


@pytest.mark.parametrize("verb", COMMANDS)
def test_the_help_of_a_verb_reads_without_types_of_python_and_shows_what_holds_by_default(cli, verb):
    shown = cli(*verb.split(), "--help").out
    assert not re.search(r"<\w|[{}]|list\[|\d{6}|\[\[|required", shown.replace("<name>", ""))
    usage = shown.splitlines()[0].removeprefix(f"Usage: hilum {verb} ").split()
    places = [one.name for one in inspect.signature(COMMANDS[verb], eval_str=True).parameters.values()]
    assert usage[0] == "[OPTIONS]"
    assert len(usage) - 1 <= len(places)
    if "out" in places and f"./{verb.split()[0]}-" in helps(verb)["out"]:
        assert f"by default ./{verb.split()[0]}-<name>" in " ".join(shown.split())


def test_a_place_that_may_stay_empty_or_take_several_shows_it_in_the_usage(cli):
    for verb, usage in (
        ("check", "DATA"),
        ("train", "[DATA]"),
        ("predict", "MODEL INPUT..."),
        ("serve", "[MODEL]..."),
        ("route", "STUDY [MODEL]..."),
    ):
        assert cli(verb, "--help").out.splitlines()[0] == f"Usage: hilum {verb} [OPTIONS] {usage}"
    assert "[default: 7]" in " ".join(cli("demo", "--help").out.split())


def test_the_list_of_verbs_fits_into_a_line_each(cli):
    assert "..." not in cli("--help").out.partition("Commands:")[2]
