"""Requirements, promises and hazards, each traced to code, to its tests and to their results."""

from __future__ import annotations

import re
import tomllib
from collections import Counter
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass
from functools import cache
from importlib.resources import files
from pathlib import Path
from typing import Literal, cast
from xml.etree import ElementTree

from typing_extensions import TypedDict

from hilum.errors import IntegrityError, UsageError
from hilum.files.storage.structured_text import TomlTable
from hilum.values.plain_values import PlainValue
from hilum.values.record_schema import RecordSchema

Kind = Literal["requirement", "promise", "hazard"]
Result = Literal["passed", "failed", "skipped", "not run", "no such test"]
TRACE = "trace.json"
REQUIREMENTS = Path("docs/requirements.toml")
PROJECT = "pyproject.toml"
HEAD = {"promises", "hazards", "requirements"}
FIELDS = {"id", "text", "source", "risk", "tests", "code"}
HAZARD_FIELDS = {"id", "hazard", "sequence", "harm", "severity", "probability", "control", "tests", "when"}
RISKS = ("low", "medium", "high")
# Of the harm, from an inconvenience to death: ISO/TR 24971:2020 names five such levels as an example.
SEVERITIES = ("negligible", "minor", "serious", "critical", "catastrophic")
TEST = re.compile(r"`(tests/[\w/]+\.py::\w+)`")
PROMISE = re.compile(r"^- |^\| (?=\*\*)", re.MULTILINE)


@dataclass(frozen=True)
class TracedRow:
    """One requirement, one promise of a page, or the control of one hazard.

    code:     files that it is about
    tests:    {test as path::name: its result}
    problems: why it does not hold
    """

    kind: Kind
    id: str
    text: str
    source: str
    risk: str
    code: tuple[str, ...]
    tests: Mapping[str, Result]
    problems: tuple[str, ...]

    def __repr__(self) -> str:
        """A line each for the requirement, its code, its tests and its problems."""
        lines = [f"{self.id} {self.text}", f"  code: {', '.join(self.code) or 'none'}"]
        lines += [f"  test: {test}: {result}" for test, result in self.tests.items()]
        return "\n".join([*lines, *(f"  does not hold: {problem}" for problem in self.problems)])


class TraceRecord(TypedDict):
    """What was traced, by id; results: how many tests ended how; broken: ids of rows that do not hold."""

    requirements: dict[str, TracedRow]
    promises: dict[str, TracedRow]
    hazards: dict[str, TracedRow]
    layers: list[str]
    results: dict[Result, int] | None
    broken: list[str]


TRACE_SCHEMA = RecordSchema("hilum.trace", TraceRecord)


@dataclass(frozen=True)
class RequirementTrace:
    """All that was traced, and what else a software file asks of a project.

    layers: import layers from the top; was_run: whether results of tests were given
    """

    rows: tuple[TracedRow, ...]
    layers: tuple[str, ...] = ()
    was_run: bool = False

    @property
    def broken(self) -> list[TracedRow]:
        """The rows that do not hold."""
        return [row for row in self.rows if row.problems]

    @property
    def _results(self) -> list[Result]:
        """The result of each test, once where several rows name it."""
        return list({test: result for row in self.rows for test, result in row.tests.items()}.values())

    def as_record(self) -> TraceRecord:
        """The record for `--json` and trace.json."""
        by_kind = {f"{kind}s": {row.id: asdict(row) for row in self.rows if row.kind == kind} for kind in _kinds()}
        counts = dict(Counter(self._results)) if self.was_run else None
        broken = [row.id for row in self.broken]
        return cast("TraceRecord", {**by_kind, "layers": list(self.layers), "results": counts, "broken": broken})

    def __repr__(self) -> str:
        counts = Counter(row.kind for row in self.rows)
        words = ", ".join(f"{counts[kind]} {kind}s" for kind in _kinds())
        return "\n".join([*map(repr, self.rows), f"{words}: {len(self.broken)} do not hold"])


def _kinds() -> tuple[Kind, ...]:
    return "requirement", "promise", "hazard"


@cache
def read_hazards() -> tuple[Mapping[str, PlainValue], ...]:
    """The hazards of imaging AI that `risk-file` lists."""
    text = files("hilum.documents").joinpath("hazards.toml").read_text(encoding="utf-8")
    unmeasured = {"probability": "command no figure of a record measures how often this happens", "when": ""}
    return tuple(unmeasured | entry for entry in tomllib.loads(text)["hazards"])


def trace_project(requirements: Path, junit: Path | None = None) -> RequirementTrace:
    """The trace of a project: its requirements, the promises of a page and the controls of hazards.

    requirements: TOML with `[[requirements]]` of id, text, source, risk, tests and code; `promises` names a page, or
                  pages, whose items of lists and rows of tables hold a test each, `hazards` a table of hazards,
                  relative to the folder of pyproject.toml
    junit:        results of the tests; then each row needs a test that passed, and none that failed
    Raises UsageError for a file that is not there or says something unknown.
    """
    root = next((one for one in requirements.absolute().parents if (one / PROJECT).is_file()), None)
    if not requirements.is_file() or root is None:
        remedy = f"Give a file of a project with {PROJECT}: --requirements {REQUIREMENTS}"
        raise UsageError("there is no such file of a project", str(requirements), remedy)
    table = _table(requirements)
    _refuse_unknown(set(table) - HEAD, requirements)
    results = None if junit is None else _results(junit)
    rows = list(_requirements(table.get("requirements", []), root, results, requirements))
    pages = table.get("promises", [])
    for page in [pages] if isinstance(pages, str) else pages:
        rows += _promises(root / page, root, results)
    if "hazards" in table:
        rows += _hazards(_table(root / table["hazards"])["hazards"], root, results, root / table["hazards"])
    twice = {name for name, count in Counter(row.id for row in rows).items() if count > 1}
    if twice:
        raise UsageError(f"{sorted(twice)[0]} stands twice", str(requirements), "Give each an id of its own")
    contracts = _table(root / PROJECT).get("tool", {}).get("importlinter", {}).get("contracts", [])
    layers = next((one["layers"] for one in contracts if one.get("type") == "layers"), ())
    return RequirementTrace(tuple(rows), tuple(layers), results is not None)


def _requirements(
    entries: Sequence[TomlTable], root: Path, results: Mapping[str, Result] | None, where: Path
) -> Iterator[TracedRow]:
    for entry in entries:
        _refuse_unknown(set(entry) - FIELDS, where)
        row = _row("requirement", entry["id"], entry, root, results)
        blank = [f"no {name}" for name in ("text", "source") if not entry.get(name)]
        blank += [] if row.risk in RISKS else [f"risk is none of {', '.join(RISKS)}"]
        yield _with(row, blank)


def _promises(page: Path, root: Path, results: Mapping[str, Result] | None) -> Iterator[TracedRow]:
    """The items of the lists of a page, and rows of its tables, called by the words in bold with which they begin."""
    for text in PROMISE.split(page.read_text(encoding="utf-8"))[1:]:
        item = re.split(r"\n(?=\n|#)", text)[0]
        words = re.match(r"\*\*(.+?)\.?\*\*", item)
        plain = re.sub(r"\s*\([^()]*`tests/[^()]*(?:\([^()]*\)[^()]*)*\)", "", item).replace("*", "").strip(" |\n")
        plain = " ".join(plain.replace(" | ", ": ").split())
        entry = {"text": plain, "source": page.name, "risk": "high", "tests": TEST.findall(item)}
        name = f"{page.stem} {words[1] if words else plain[:40]}"
        yield _row("promise", name, entry, root, results)


def _hazards(
    entries: Sequence[TomlTable], root: Path, results: Mapping[str, Result] | None, where: Path
) -> Iterator[TracedRow]:
    for entry in entries:
        _refuse_unknown(set(entry) - HAZARD_FIELDS, where)
        control = entry.get("control", "")
        stated = {"text": control, "source": entry.get("hazard", ""), "risk": entry.get("severity", "")}
        row = _row("hazard", entry["id"], {**stated, "tests": entry.get("tests", [])}, root, results)
        blank = [f"no {name}" for name in ("hazard", "sequence", "harm", "control") if not entry.get(name)]
        blank += [] if row.risk in SEVERITIES else [f"severity is none of {', '.join(SEVERITIES)}"]
        yield _with(row, blank)


def _row(kind: Kind, name: str, entry: TomlTable, root: Path, results: Mapping[str, Result] | None) -> TracedRow:
    tests: dict[str, Result] = {}
    for test in entry.get("tests", []):
        known = _is_there(test, root)
        tests[test] = ("not run" if results is None else results.get(test, "not run")) if known else "no such test"
    code = tuple(entry.get("code") or dict.fromkeys(_room(test, root) for test in tests))
    problems = [] if tests else ["no test"]
    problems += [f"there is no {path}" for path in code if not (root / path).exists()]
    problems += [f"{test}: {result}" for test, result in tests.items() if result in ("failed", "no such test")]
    if results is not None and not problems and "passed" not in tests.values():
        problems.append("none of its tests passed")
    text, source, risk = (str(entry.get(one, "")) for one in ("text", "source", "risk"))
    return TracedRow(kind, name, text, source, risk, code, tests, tuple(problems))


def _with(row: TracedRow, problems: Sequence[str]) -> TracedRow:
    return TracedRow(**{**vars(row), "problems": (*row.problems, *problems)})


def _is_there(test: str, root: Path) -> bool:
    path, _, name = test.partition("::")
    file = root / path
    return bool(name) and file.is_file() and f"\ndef {name}(" in f"\n{file.read_text(encoding='utf-8')}"


def _room(test: str, root: Path) -> str:
    """The folder of the source that a test mirrors; all of the source where it mirrors none."""
    [package, *_] = sorted(one.parent.relative_to(root).as_posix() for one in root.glob("src/*/__init__.py")) or ["."]
    room = f"{package}/{test.split('/')[1]}"
    return room if (root / room).is_dir() else package


def _results(junit: Path) -> Mapping[str, Result]:
    """{test as path::name: its result}, the worst of its parameters, from the JUnit file of pytest."""
    try:
        root = ElementTree.parse(junit).getroot()  # noqa: S314  the parser refuses entities that grow
    except (ElementTree.ParseError, OSError) as error:
        raise IntegrityError(f"is no JUnit file ({error})", str(junit), "Write it by pytest --junitxml") from error
    order: tuple[Result, ...] = ("failed", "passed", "skipped")
    found: dict[str, Result] = {}
    for case in root.iter("testcase"):
        kinds = {one.tag for one in case}
        result: Result = "failed" if kinds & {"failure", "error"} else "skipped" if "skipped" in kinds else "passed"
        name = f"{case.get('classname', '').replace('.', '/')}.py::{case.get('name', '').partition('[')[0]}"
        found[name] = min(result, found.get(name, result), key=order.index)
    return found


def _table(file: Path) -> TomlTable:
    try:
        return tomllib.loads(file.read_text(encoding="utf-8"))
    except (tomllib.TOMLDecodeError, OSError) as error:
        raise UsageError(f"is no TOML ({error})", str(file), "Correct it at the place that is named") from error


def _refuse_unknown(names: set[str], where: Path) -> None:
    if names:
        raise UsageError(
            f"{sorted(names)[0]!r} is not known", str(where), "Use the fields that the documentation names"
        )
