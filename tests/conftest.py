"""What all tests share: where the real data lie, and a cache that is not the user's."""

from __future__ import annotations

import gc
import logging
import pickle
import signal
import subprocess
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass
from functools import partial
from itertools import count
from pathlib import Path
from typing import TYPE_CHECKING, Any

import psutil
import pytest
from hypothesis import settings

import forked
import hilum
import real_data
import trained
from hilum.cli import exit_codes
from made_once import made_once

if TYPE_CHECKING:
    from hilum.verbs.package import PackagingResult  # which imports torch, also where workers run the tests

SYSTEM_PACKAGES = Path(__file__).parent / "system_packages.sh"
# Rooms whose tests take longest.
LONGEST_FIRST = ("verbs", "service", "", "layouts", "files", "runtime", "networks", "training", "report")
COLLECTION = "imports and collection"
SPENT: Counter[str] = Counter()
COUNTED = [0.0]
# Tests that read the larger corpus, where it is not here.
LEFT_OUT: set[str] = set()
PASSED = count(1)
# A shell starts what goes on in the background with Ctrl-C ignored, `nohup` with a closed terminal ignored, and Python
# leaves both so: tests press the one and close the other.
signal.signal(signal.SIGINT, signal.default_int_handler)
if hasattr(signal, "SIGHUP"):
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

settings.register_profile("suite", max_examples=25, deadline=None, derandomize=True)
settings.load_profile("suite")
# Seconds of a set-up that are worth a line.
LONG = 0.5
# Of a property `make test` draws so many examples, and `make test-all` as many as it states.
FEW_EXAMPLES = 5


@pytest.fixture(scope="session")
def data() -> Path:
    """The folder of real data that every checkout has."""
    return real_data.SHIPPED


@pytest.fixture(scope="session")
def corpus() -> Path:
    """The larger corpus of real data; a test that asks for it has the mark `corpus`."""
    return real_data.CORPUS


@pytest.fixture(autouse=True)
def the_same_draws_each_time() -> None:
    """Networks that a test makes begin with the same weights in each run, and in whatever order tests run."""
    if (torch := sys.modules.get("torch")) is not None:
        # `torch.manual_seed` also notes for each kind of accelerator who called it: half of what an empty test took.
        torch.default_generator.manual_seed(0)


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
        # What has lived long is looked through a tenth as often: it took a twentieth of the time of all tests.
        gc.set_threshold(2_000, 10, 100)
        _listen_to_torch_at_the_root()
        logging.getLogger("nibabel.global").setLevel(logging.WARNING)  # a line a header, over what a failure says
        account("imports and collection")


def _listen_to_torch_at_the_root() -> None:
    """Spare pytest the forty loggers of torch that hand nothing on: it listens to each by itself, six times a test."""
    for name, logger in logging.root.manager.loggerDict.items():
        if name.startswith("torch") and isinstance(logger, logging.Logger):
            logger.propagate = True


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Rooms that take longest come first: workers that run files side by side then end together."""
    for item in items:
        if "corpus" in getattr(item, "fixturenames", ()):
            item.add_marker(pytest.mark.corpus)
    if not real_data.CORPUS_IS_HERE:
        _leave_out_corpus(config, items)
    if "not whole" in config.option.markexpr:
        for item in items:
            if isinstance(item, pytest.Function):
                _with_few_examples(item)
    items.sort(key=lambda item: [room_of(item.nodeid) == room for room in LONGEST_FIRST], reverse=True)


def _leave_out_corpus(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Take out the tests that read the larger corpus; the summary says how many."""
    with_corpus = [item for item in items if item.get_closest_marker("corpus") is not None]
    without = [item for item in items if item.get_closest_marker("corpus") is None]
    config.hook.pytest_deselected(items=with_corpus)
    LEFT_OUT.update(item.nodeid for item in with_corpus)
    items[:] = without


def _with_few_examples(item: pytest.Function) -> None:
    """Let a property draw the first of the examples that it always draws."""
    # A function keeps its settings under the one name, a machine of states under the other.
    for holder, name in ((item.function, "_hypothesis_internal_use_settings"), (item.cls, "settings")):
        given = getattr(holder, name, None)
        if isinstance(given, settings) and given.max_examples > FEW_EXAMPLES:
            setattr(holder, name, settings(given, max_examples=FEW_EXAMPLES))


def pytest_report_teststatus(report: pytest.TestReport) -> tuple[str, str, str] | None:
    """A dot is fifty tests that passed: what failed, or was skipped, has its letter."""
    if not report.passed or report.when != "call":
        return None
    return "passed", "" if next(PASSED) % 50 else ".", "PASSED"


@pytest.hookimpl(wrapper=True)
def pytest_runtest_protocol(item: pytest.Item, nextitem: pytest.Item | None) -> Iterator[None]:
    """What the tests of a room spend is asked after its last one: asking takes milliseconds."""
    result = yield
    room = room_of(item.nodeid)
    if nextitem is None or room_of(nextitem.nodeid) != room:
        account(room or "tests/*.py")
    return result


@pytest.hookimpl(trylast=True)
def pytest_sessionstart(session: pytest.Session) -> None:
    """A worker says how a test ended, and which set-ups took long: five messages a test were half of an empty one."""
    [interactor] = [one for one in session.config.pluginmanager.get_plugins() if hasattr(one, "run_one_test")] or [None]
    if interactor is None:
        return
    send = interactor.sendevent

    def sent(name: str, **given: Any) -> None:
        report = given.get("data", {}) if name == "testreport" else {}
        is_quick = report.get("outcome") == "passed" and report["when"] != "call" and report["duration"] < LONG
        if name not in ("logstart", "logfinish") and not is_quick:
            send(name, **given)

    interactor.sendevent = sent


def pytest_sessionfinish(session: pytest.Session) -> None:
    """A worker tells the process that started it what it has spent."""
    if hasattr(session.config, "workeroutput"):
        session.config.workeroutput["spent"] = dict(SPENT)
        session.config.workeroutput["left_out"] = sorted(LEFT_OUT)


@pytest.hookimpl(optionalhook=True)
def pytest_testnodedown(node: Any) -> None:
    output = getattr(node, "workeroutput", {})
    SPENT.update(output.get("spent", {}))
    LEFT_OUT.update(output.get("left_out", ()))


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """Processor seconds a room, which decide nothing, and what did not run, with what brings it."""
    terminalreporter.section("processor seconds a room")
    for room, seconds in SPENT.most_common():
        terminalreporter.write_line(f"{room:24}{seconds:6.0f}")
    terminalreporter.section("not run")
    reasons = Counter(_reason(report) for report in terminalreporter.stats.get("skipped", ()))
    for reason, number in reasons.most_common():
        terminalreporter.write_line(f"{number:6} skipped: {reason}")
    if LEFT_OUT:
        terminalreporter.write_line(f"{len(LEFT_OUT):6} left out: {real_data.WITHOUT_CORPUS}")
    missing = subprocess.run(["sh", SYSTEM_PACKAGES, "--missing"], capture_output=True, text=True, check=False).stdout
    if missing.strip():
        terminalreporter.write_line(f"System packages that bring skipped tests: {missing.strip()}")


def _reason(report: pytest.TestReport) -> str:
    """The words with which a test was skipped."""
    is_place_and_words = isinstance(report.longrepr, tuple)
    words = report.longrepr[2] if is_place_and_words else str(report.longrepr)
    return words.removeprefix("Skipped: ")


def account(room: str) -> None:
    """Add to a room what was spent since the last account; what a process spent that was killed since is lost."""
    now = processor_seconds()
    SPENT[room] += max(0.0, now - COUNTED[-1])
    COUNTED.append(now)


def processor_seconds() -> float:
    """Of this process and of all that it started, those that still run too."""
    seconds = 0.0
    own = psutil.Process()
    for process in (own, *own.children(recursive=True)):
        with suppress(psutil.Error):
            seconds += sum(process.cpu_times()[:4])
    return seconds


@pytest.fixture(autouse=True, scope="session")
def own_cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """No test writes into the user's cache or configuration, or depends on what is in it; no shared run does either."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_CACHE", str(tmp_path_factory.getbasetemp() / "cache"))
        patch.setenv("HILUM_PATIENT_KEY", "of the tests")
        yield


@pytest.fixture(scope="session")
def segmented(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of a few steps on small volumes."""
    return _run_once(tmp_path_factory, trained.blobs, trained.segmenting)


@pytest.fixture(scope="session")
def cross_validated(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of three folds on small volumes."""
    return _run_once(tmp_path_factory, trained.blobs, trained.crossing)


@pytest.fixture(scope="session")
def classified(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of a few steps on small pictures of two classes."""
    return _run_once(tmp_path_factory, trained.pictures, trained.classifying)


@pytest.fixture(scope="session")
def gated(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run with a gate, on sixty small pictures of two classes."""
    return _run_once(tmp_path_factory, partial(trained.pictures, count=60), trained.gating)


@pytest.fixture(scope="session")
def detected(tmp_path_factory: pytest.TempPathFactory) -> trained.Trained:
    """A run of a few steps on small pictures with boxes."""
    return _run_once(tmp_path_factory, trained.smears, trained.detecting)


@pytest.fixture(scope="session")
def packaged(segmented: trained.Trained, tmp_path_factory: pytest.TempPathFactory) -> PackagingResult:
    """The package of the run on volumes; tests only read it, or copy it to damage it."""

    def make(root: Path) -> None:
        with forked.trials():
            made = hilum.package(segmented.out, out=root / "shells", backends=("onnx",))
        (root / "result.pickle").write_bytes(pickle.dumps(made))

    return pickle.loads((made_once(tmp_path_factory, "packaged", make) / "result.pickle").read_bytes())  # noqa: S301


def _run_once(folders: pytest.TempPathFactory, cohort: Callable, train: Callable) -> trained.Trained:
    def make(root: Path) -> None:
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
        monkeypatch.setattr(sys, "argv", ["hilum", *map(str, words)])
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            exit_codes.main()
        out, err = capsys.readouterr()
        return CommandResult(int(ended.value.code or 0), out, err)

    return call
