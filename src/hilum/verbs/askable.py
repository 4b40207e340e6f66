"""What a user can ask for, gathered from the indexes of all rooms: `askable.json`, which `info` reads.

It imports every library. `python tests/test_askable.py` writes the file after something was added on purpose.
"""

from __future__ import annotations

from dataclasses import fields, is_dataclass
from importlib import resources
from typing import Any

from typing_extensions import TypedDict

import hilum
from hilum import plugins
from hilum.doors import keyword_schema
from hilum.explanation import explanation_methods
from hilum.federation import aggregation
from hilum.files.dicom.writing import dicom_answers
from hilum.files.file_formats import FORMATS
from hilum.layouts.layout import LAYOUTS
from hilum.networks import NETWORKS
from hilum.objectives import objective_catalogue
from hilum.objectives.objective_catalogue import OBJECTIVES
from hilum.options.command_index import COMMANDS, Command
from hilum.prediction import answers
from hilum.quality.references import REFERENCES
from hilum.runtime import inference
from hilum.runtime.package.backends import BACKENDS
from hilum.tasks import task_catalogue
from hilum.tasks.index import TASKS
from hilum.transforms import augment
from hilum.transforms.operators import operator_kinds, reconstruction_methods
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.verbs.document import FORMATS as PAGES


class AskableCommand(TypedDict):
    """A command: what it does, its function in Python, and {option on the command line: its default}.

    required: options without which a call is refused
    is_own:   whether only a person at a terminal may give it, and no agent
    """

    text: str
    call: str
    required: list[str]
    is_own: bool
    options: dict[str, PlainValue]


class AskableLists(TypedDict):
    """What can be asked for, by name.

    kinds_of_problem, objectives: with their settings
    networks: families, with their kinds of output and numbers of axes
    formats:  of images, with the ends of names of their files
    """

    python: list[str]
    verbs: dict[str, AskableCommand]
    kinds_of_problem: dict[str, list[str]]
    objectives: dict[str, list[str]]
    networks: dict[str, list[str]]
    layouts: list[str]
    formats: dict[str, list[str]]
    dicom_answers: list[str]
    result_formats: list[str]
    documents: list[str]
    document_formats: list[str]
    backends: list[str]
    aggregations: list[str]
    references: list[str]
    explanations: list[str]
    uncertainty: list[str]
    augmentations: list[str]
    acquisitions: list[str]
    reconstructions: list[str]


class InfoRecord(RecordHead, AskableLists):
    """The release, what can be asked of it, and {list: names that other installed packages add to it}."""

    release: str
    added: dict[str, list[str]]


INFO_SCHEMA = RecordSchema("hilum.info", InfoRecord)


def gather_names() -> AskableLists:
    """The lists as the indexes have them now, each in the order of its names, but commands as help lists them."""
    document_lists = resources.files("hilum.documents") / "lists"
    documents = [one.name.removesuffix(".toml") for one in document_lists.iterdir() if one.name.endswith(".toml")]
    return AskableLists(
        python=sorted(hilum.__all__),  # type: ignore[attr-defined]  # the index has it by __getattr__
        verbs={command.words: _command_entry(command) for command in COMMANDS},
        kinds_of_problem={name: _setting_names(task_catalogue.task_class(name)) for name in sorted(TASKS)},
        objectives={name: _setting_names(objective_catalogue.objective_kind(name)) for name in sorted(OBJECTIVES)},
        networks={name: _outputs_of(plugins.load_target(target)) for name, target in sorted(NETWORKS.items())},
        layouts=sorted(LAYOUTS),
        formats={name: list(entry.suffixes) for name, entry in sorted(FORMATS.items())},
        dicom_answers=sorted(dicom_answers.ANSWERS),
        result_formats=sorted(answers.FORMATS),
        documents=sorted(documents),
        document_formats=sorted(PAGES),
        backends=sorted(BACKENDS),
        aggregations=sorted(aggregation.AGGREGATIONS),
        references=sorted(REFERENCES),
        explanations=sorted(explanation_methods.METHODS),
        uncertainty=sorted(inference.METHODS),
        augmentations=sorted(augment.KINDS),
        acquisitions=sorted(operator_kinds.OPERATORS),
        reconstructions=sorted(reconstruction_methods.METHODS),
    )


def _command_entry(command: Command) -> AskableCommand:
    """A command with its options in the order of their names; their defaults are those that agents are told."""
    keywords = sorted(command.keywords.values(), key=lambda keyword: keyword.command_line_name)
    options: dict[str, PlainValue] = {
        keyword.command_line_name: keyword_schema.option_schema(command, keyword).get("default") for keyword in keywords
    }
    if command.is_json:
        options["--json"] = False
    return AskableCommand(
        text=command.text,
        call=f"hilum.{command.verb or command.words}",
        required=[one.command_line_name for one in keywords if one.is_required and not one.path],
        is_own=command.is_own,
        options=options,
    )


def _setting_names(kind: Any) -> list[str]:
    """Names of the settings of a class: its dataclass fields, with those that it inherits."""
    return sorted(one.name for one in fields(kind)) if is_dataclass(kind) else []


def _outputs_of(family: Any) -> list[str]:
    """Kinds of heads that a family has, each with the numbers of axes of its images."""
    return [f"{answer} {axes}D" for answer in sorted(family.answers) for axes in family.axes]
