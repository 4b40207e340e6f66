"""What a user can ask for, from the indexes: the list that a rewrite of the house leaves as it is.

python tests/test_askable.py        # writes the list anew, after something was added on purpose
"""

from __future__ import annotations

import dataclasses
import json
from collections.abc import Iterable
from importlib import import_module, resources
from pathlib import Path
from typing import Any

import pytest

import hilum
from hilum.explanation import explanation_methods
from hilum.federation import aggregation
from hilum.files.dicom.writing import dicom_answers
from hilum.files.file_formats import FORMATS
from hilum.layouts.layout import LAYOUTS
from hilum.networks import NETWORKS, Family
from hilum.objectives import objective_catalogue
from hilum.objectives.objective_catalogue import OBJECTIVES
from hilum.options.command_index import COMMANDS
from hilum.prediction import answers
from hilum.quality.references import REFERENCES
from hilum.runtime import inference
from hilum.runtime.package.backends import BACKENDS
from hilum.tasks import task_catalogue
from hilum.tasks.index import TASKS
from hilum.transforms import augment
from hilum.transforms.operators import operator_kinds, reconstruction_methods
from hilum.verbs.document import FORMATS as PAGES

LIST = Path(__file__).parent / "data" / "askable.json"


def askable() -> dict[str, Any]:
    """{what: its names in order}; verbs, kinds and objectives with their settings, families with their answers."""
    lists = resources.files("hilum.documents") / "lists"
    return {
        "Python": sorted(hilum.__all__),
        "verbs": {one.words: sorted(word.command_line_name for word in one.keywords.values()) for one in COMMANDS},
        "kinds of problem": {name: fields_of(task_catalogue.task_class(name)) for name in sorted(TASKS)},
        "objectives": {name: fields_of(objective_catalogue.objective_kind(name)) for name in sorted(OBJECTIVES)},
        "families": {name: answers_of(loaded(target)) for name, target in sorted(NETWORKS.items())},
        "layouts": sorted(LAYOUTS),
        "formats": {name: list(entry.suffixes) for name, entry in sorted(FORMATS.items())},
        "DICOM answers": sorted(dicom_answers.ANSWERS),
        "files of answers": sorted(answers.FORMATS),
        "documents": sorted(one.name for one in lists.iterdir() if one.name.endswith(".toml")),
        "pages of documents": sorted(PAGES),
        "backends": sorted(BACKENDS),
        "aggregations": sorted(aggregation.AGGREGATIONS),
        "references": sorted(REFERENCES),
        "explanations": sorted(explanation_methods.METHODS),
        "uncertainty": sorted(inference.METHODS),
        "augmentations": sorted(augment.KINDS),
        "acquisitions": sorted(operator_kinds.OPERATORS),
        "reconstructions": sorted(reconstruction_methods.METHODS),
    }


def fields_of(kind: Any) -> list[str]:
    """Names of the settings of a class: its dataclass fields, with those that it inherits."""
    return sorted(one.name for one in dataclasses.fields(kind)) if dataclasses.is_dataclass(kind) else []


def answers_of(family: Family) -> list[str]:
    """Kinds of heads that a family has, each with the numbers of axes of its images."""
    return [f"{answer} {axes}D" for answer in sorted(family.answers) for axes in family.axes]


def loaded(target: str) -> Any:
    module, _, attribute = target.partition(":")
    return getattr(import_module(module), attribute)


@pytest.fixture(scope="module")
def now() -> Any:
    return json.loads(json.dumps(askable()))


@pytest.mark.parametrize("what", json.loads(LIST.read_text(encoding="utf-8")) if LIST.exists() else ())
def test_what_a_user_can_ask_for_is_what_the_list_has(what, now):
    """Nothing went; what was added on purpose is written into the list."""
    listed = json.loads(LIST.read_text(encoding="utf-8"))[what]
    assert now[what] == listed, f"what was added to {what} on purpose is listed by: python tests/test_askable.py"


def test_the_list_leaves_nothing_out(now):
    stated = json.loads(LIST.read_text(encoding="utf-8"))
    assert list(now) == list(stated)
    assert all(len(names) > 1 for names in stated.values())


def write(names: Iterable[tuple[str, Any]]) -> None:
    LIST.parent.mkdir(exist_ok=True)
    LIST.write_text(json.dumps(dict(names), indent=1) + "\n", encoding="utf-8")


if __name__ == "__main__":
    write(askable().items())
