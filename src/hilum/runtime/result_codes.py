"""The codes of a model's names: of a file, of the data, of DICOM's dictionary, or none but a private one.

They lie in the model's record under "codes", which packages and ensembles keep.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import replace
from typing import Final

from hilum.files.dicom import dictionary_codes
from hilum.runtime.model_assembly import Model
from hilum.tasks import Task, properties
from hilum.values import Finding, Label
from hilum.values.finding import CodedName

CODES: Final = "codes"
DATA, DICTIONARY = "the data", "DICOM's dictionary"


def with_codes(model: Model, stated_codes: Mapping[str, CodedName]) -> Model:
    """The model with the codes of a file before its own, and the codes of all its names in its record."""
    recorded = {**_recorded_codes(model), **stated_codes}
    codes = {name: recorded.get(name) or _find_code(label) for name, label in _labels(model.task).items()}
    # A file may also name measures such as "short axis".
    record = {name: coded.record for name, coded in {**recorded, **codes}.items() if coded.codes}
    return replace(model, record={**model.record, CODES: record})


def codes_of_model(model: Model) -> dict[str, CodedName]:
    """The codes of every name that results state, and of what a file names beside them; private ones without a code."""
    recorded = _recorded_codes(model)
    return {
        **{name: recorded.get(name) or _find_code(label) for name, label in _labels(model.task).items()},
        **recorded,
    }


def coded_findings(findings: Sequence[Finding], codes: Mapping[str, CodedName]) -> list[Finding]:
    """Findings with the codes of their names or classes, and with the unit of a file of codes where they have none."""
    coded = []
    for finding in findings:
        code = codes.get(finding.kind or finding.concept, CodedName())
        has_value = isinstance(finding.value, int | float) and not isinstance(finding.value, bool)
        unit = finding.unit or (code.unit if has_value else "")
        coded.append(replace(finding, codes=code.codes or finding.codes, unit=unit))
    return coded


def coded_labels(labels: Sequence[Label], codes: Mapping[str, CodedName]) -> tuple[Label, ...]:
    """The labels of a map with the first code of each name, of single objects of their class, as a SEG has them."""
    named = [(label, codes.get(label.kind or label.name, CodedName()).codes) for label in labels]
    return tuple(replace(label, code=own[0]) if own else label for label, own in named)


def _recorded_codes(model: Model) -> dict[str, CodedName]:
    return {name: CodedName.from_record(one) for name, one in (model.record.get(CODES) or {}).items()}


def _labels(task: Task) -> dict[str, Label]:
    """{name: its label} of what results state."""
    parts = properties.leaf_tasks(task).values()
    labels = {one.name: one for part in parts for one in (*part.channel_labels, *part.labels) if not one.is_bare}
    return labels | {name: Label(0, name) for name in task.probable_findings if name not in labels}


def _find_code(label: Label) -> CodedName:
    """The code that the data state, else that of DICOM's dictionary."""
    if label.code is not None:
        return CodedName((label.code,), DATA)
    code = dictionary_codes.dictionary_code(label.name)
    return CodedName() if code is None else CodedName((code,), DICTIONARY)
