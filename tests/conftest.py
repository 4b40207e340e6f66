"""What all tests share: where the real data lie, and a cache that is not the user's."""

from __future__ import annotations

import gc
import os
import pickle
import signal
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from functools import partial
from pathlib import Path

import PIL.Image
import pytest
from hypothesis import settings

import forked
import isocenter
import trained
from isocenter.cli import main
from isocenter.report.figures import drawing
from isocenter.verbs.package import Packaged
from made_once import made_once

DATA = Path(os.environ.get("ISOCENTER_TEST_DATA", Path(__file__).parents[2] / "shared" / "data"))

# Seconds on two idle cores in which each room's tests should be done; more is shown, and fails nothing.
# All of them, side by side: 780 s, and 40 s until all tests are collected.
BUDGET = {
    "": 90,
    "cli": 5,
    "evaluation": 35,
    "explanation": 15,
    "files": 60,
    "networks": 110,
    "planning": 60,
    "prediction": 5,
    "quality": 35,
    "report": 80,
    "service": 85,
    "runtime": 145,
    "tasks": 50,
    "training": 95,
    "transforms": 10,
    "values": 5,
    "verbs": 670,
}

# How charts are drawn in full: in both inks, each laid out as the other, with pixels.
IN_FULL = {name: getattr(drawing, name) for name in ("_drawn", "_lie_as", "_rendered")}
# A shell starts what goes on in the background with Ctrl-C ignored, and Python leaves it so: tests press it.
signal.signal(signal.SIGINT, signal.default_int_handler)

settings.register_profile("suite", max_examples=40, deadline=None, derandomize=True)
settings.load_profile("suite")


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data beside the checkout."""
    if not DATA.is_dir():
        pytest.skip("the real data are not at ../shared/data")
    return DATA


def room_of(nodeid: str) -> str:
    """The folder of tests in which a test lies; "" for those beside the folders."""
    folders = Path(nodeid.partition("::")[0]).parts[1:-1]
    return folders[0] if folders else ""


@pytest.hookimpl(wrapper=True)
def pytest_collection() -> Iterator[None]:
    """What collects garbage leaves the million objects of the tests alone: it took eight seconds of each process."""
    gc.disable()
    try:
        return (yield)
    finally:
        gc.enable()
        gc.freeze()


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Rooms that take longest come first: workers that run files side by side then end together."""
    items.sort(key=lambda item: -BUDGET.get(room_of(item.nodeid), 0))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Seconds a room, beside its budget: they say where a slow suite is slow, and decide nothing."""
    spent: Counter[str] = Counter()
    for reports in terminalreporter.stats.values():
        for report in (one for one in reports if isinstance(one, pytest.TestReport)):
            spent[room_of(report.nodeid)] += report.duration
    terminalreporter.section("seconds a room, of its budget")
    for room, seconds in sorted(spent.items()):
        over = " over" if seconds > BUDGET.get(room, 0) else ""
        terminalreporter.write_line(f"{room or 'tests/*.py':12}{seconds:6.0f} of {BUDGET.get(room, 0):4}{over}")


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache or configuration, or depends on what is in it; no shared run does either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("ISOCENTER_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("ISOCENTER_PATIENT_KEY", "of the tests")
        yield


@pytest.fixture(autouse=True, scope="session")
def charts_without_pixels() -> Iterator[None]:
    """Charts are drawn in one ink and not turned into pixels, which takes half of the time of a small training.

    Tests of the room `report` see real pictures, as do those with the mark `pictures`, `segmented` and `classified`.
    """
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(drawing, "_rendered", lambda canvas, dpi: PIL.Image.new("RGB", (8, 8)))
        patch.setattr(drawing, "_drawn", _drawn_if_light)
        patch.setattr(drawing, "_lie_as", lambda canvas, laid_out: None)
        yield


def _drawn_if_light(draw: Callable, ink: drawing.Ink, size: tuple[float, float]) -> drawing.Canvas:
    return IN_FULL["_drawn"](draw if ink is drawing.LIGHT else lambda *nothing: None, ink, size)


def _in_full(patch: pytest.MonkeyPatch) -> None:
    for name, function in IN_FULL.items():
        patch.setattr(drawing, name, function)


@pytest.fixture(autouse=True)
def pictures(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> None:
    """Pixels for the tests that look at charts."""
    if room_of(request.node.nodeid) == "report" or request.node.get_closest_marker("pictures") is not None:
        _in_full(monkeypatch)


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of a few steps on small volumes."""
    return _run_once(tmp_path_factory, trained.blobs, trained.segmenting)


@pytest.fixture(scope="session")
def cross_validated(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of three folds on small volumes."""
    return _run_once(tmp_path_factory, trained.blobs, trained.crossing, in_full=False)


@pytest.fixture(scope="session")
def classified(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of a few steps on small pictures of two classes."""
    return _run_once(tmp_path_factory, trained.pictures, trained.classifying)


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run with a gate, on sixty small pictures of two classes."""
    return _run_once(tmp_path_factory, partial(trained.pictures, count=60), trained.gating, in_full=False)


@pytest.fixture(scope="session")
def detected(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of a few steps on small pictures with boxes."""
    return _run_once(tmp_path_factory, trained.smears, trained.detecting, in_full=False)


@pytest.fixture(scope="session")
def packaged(segmented: trained.Trained, tmp_path_factory: pytest.TempPathFactory) -> Packaged:
    """The package of the run on volumes; tests only read it, or copy it to damage it."""

    def make(root: Path) -> None:
        with forked.trials():
            made = isocenter.package(segmented.out, out=root / "shells", backends=("onnx",))
        (root / "result.pickle").write_bytes(pickle.dumps(made))

    return pickle.loads((made_once(tmp_path_factory, "packaged", make) / "result.pickle").read_bytes())  # noqa: S301


def _run_once(
    folders: pytest.TempPathFactory, cohort: Callable, train: Callable, *, in_full: bool = True
) -> trained.Trained:
    def make(root: Path) -> None:
        with pytest.MonkeyPatch.context() as patch:
            if in_full:
                _in_full(patch)
            train(cohort(root / "data"), root / "run")

    root = made_once(folders, train.__name__, make)
    return trained.Trained(root / "data", root / "run")


@dataclass(frozen=True)
class CommandResult:
    """What a command left: its exit code, its standard output and its standard error."""

    code: int
    out: str
    err: str

    @property
    def last(self) -> str:
        """The line that says where, what and what to do."""
        return self.err.rstrip().rpartition("\n")[2]


@pytest.fixture
def cli(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., CommandResult]:
    """The command line, in this process."""

    def call(*words: object) -> CommandResult:
        monkeypatch.setattr(sys, "argv", ["isocenter", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            main()
        out, err = capsys.readouterr()
        return CommandResult(int(ended.value.code or 0), out, err)

    return call
