"""Lines of advice for a model: what it states, and the file in which lines are given."""

from __future__ import annotations

import tomllib
from pathlib import Path

from pydantic import TypeAdapter, ValidationError

from hilum import errors
from hilum.errors import UsageError
from hilum.runtime import Model, label_measurements
from hilum.tasks import properties
from hilum.values.advice_lines import ADVICE, FORMS, AdviceLine, AdviceWords

LINES = TypeAdapter(tuple[AdviceLine, ...])


def read_lines(path: Path) -> tuple[AdviceLine, ...]:
    """The lines of a TOML file, `advice = [{ when = "...", say = "..." }, ...]`. Raises UsageError for another file."""
    try:
        return LINES.validate_python(tomllib.loads(path.read_text(encoding="utf-8"))[ADVICE])
    except (OSError, tomllib.TOMLDecodeError, KeyError) as error:
        what = f"is no file with a list `advice` ({errors.describe_fault(error)})"
        raise UsageError(what, str(path), 'Write advice = [{ when = "...", say = "..." }, { say = "..." }]') from error
    except ValidationError as error:
        first = error.errors()[0]
        place = " ".join(str(one) for one in first["loc"])
        raise UsageError(f"line {place}: {first['msg']}", str(path), f"Write {FORMS} or abstained") from error


def words_of_model(model: Model) -> AdviceWords:
    """The words of a model whose answers are compared with no earlier study."""
    units = dict(model.task.valued_findings)
    size = {2: "mm2", 3: "ml"}.get(model.preprocessing.ndim, "")
    for part in properties.leaf_tasks(model.task).values():
        units |= {label.name: size for label in part.labels if label.name in units}
    units |= {ratio.name: ratio.unit for ratio in label_measurements.ratios_of(model)}
    return AdviceWords(model.task.grades, tuple(model.task.probable_findings), units)
