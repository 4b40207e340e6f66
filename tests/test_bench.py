"""The harness of the benchmarks: it runs real programs, and says what failed."""

from __future__ import annotations

import importlib
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import psutil
import pytest

import hilum
import trained
from hilum.tasks import index, properties, task_catalogue

BENCH = Path(__file__).parent.parent / "bench"
HOLDS = "held = bytearray(120 << 20)"


@pytest.fixture
def bench(monkeypatch, tmp_path):
    """The harness, whose environments and logs lie in a folder of their own."""
    monkeypatch.syspath_prepend(str(BENCH))
    peers = importlib.import_module("beside")
    monkeypatch.setattr(peers, "PLACE", tmp_path)
    return peers


def python(*lines: str) -> list[str]:
    return [sys.executable, "-I", "-S", "-c", "\n".join(lines)]


def test_programs_take_turns_and_every_second_round_goes_backwards(bench):
    programs = [bench.Program(name, python("pass")) for name in ("ours", "theirs")]
    table = bench.interleaved(programs, 3, 1)
    assert table["program"].tolist() == ["ours", "theirs", "theirs", "ours", "ours", "theirs"]
    assert (table["problem"] == "").all()


def test_the_memory_of_a_program_is_its_own_and_not_that_of_the_bench(bench):
    ballast = bytearray(200 << 20)
    table = bench.interleaved([bench.Program("small", python("pass")), bench.Program("large", python(HOLDS))], 1, 1)
    small, large = table["peak_mib"]
    assert small < 60
    assert 120 < large < 200
    assert len(ballast) == 200 << 20


def test_the_memory_of_child_processes_counts(bench):
    child = f"{HOLDS}; import time; time.sleep(3)"
    parent = python("import subprocess, sys", f"subprocess.run([sys.executable, '-I', '-S', '-c', {child!r}])")
    [row] = bench.interleaved([bench.Program("parent", parent)], 1, 1).to_dict("records")
    assert row["peak_mib"] > 120
    assert row["processes"] == 2


def test_a_program_is_told_how_many_threads_it_may_have(bench):
    output = "import json, os; print(json.dumps({'threads': int(os.environ['OMP_NUM_THREADS'])}))"
    [row] = bench.interleaved([bench.Program("asked", python(output))], 1, 3).to_dict("records")
    assert row["said"] == {"threads": 3}


@pytest.mark.skipif(not hasattr(os, "sched_setaffinity"), reason="this system lets nobody choose cores")
def test_a_core_that_the_bench_itself_may_not_use_is_refused_with_how_many_it_may(bench, tmp_path):
    where = {"environment": {}, "folder": tmp_path, "log": tmp_path / "log", "cores": 1, "at_most": None}
    with pytest.raises(OSError, match=r"cores from number 4096 on were asked for: the bench itself may use \d"):
        importlib.import_module("watched").watched(python("pass"), first_core=4096, **where)


def test_each_kind_of_failure_is_a_row_that_says_so(bench):
    programs = [
        bench.Program("broken", python("raise SystemExit('out of | luck')")),
        bench.Program("endless", python("import time; time.sleep(60)"), at_most=0.5),
        bench.Program("missing", ["/nowhere/program"]),
    ]
    table = bench.interleaved(programs, 1, 1)
    assert [one.split(": ", 1)[1][:16] for one in bench.failures(table)] == [
        "ended with 1: ou",
        "ended after 0.5 ",
        "could not be sta",
    ]
    lines = bench.markdown(table).splitlines()
    assert all("not measured" in line and "1 failed" in line for line in lines[2:])
    assert len({line.count("|") for line in lines}) == 1


def test_workers_that_outlive_their_program_are_ended(bench):
    late = "[sys.executable, '-I', '-S', '-c', 'import time; time.sleep(100)']"
    leaves = python("import subprocess, sys", f"print('{{\"worker\": %d}}' % subprocess.Popen({late}).pid)")
    [row] = bench.interleaved([bench.Program("leaves a worker", leaves)], 1, 1).to_dict("records")
    with suppress(psutil.NoSuchProcess):
        psutil.Process(row["said"]["worker"]).wait(60)


def test_a_ratio_is_taken_round_by_round(bench):
    rows = [
        ("ours", 0, 1.0),
        ("peer", 0, 3.0),
        ("ours", 1, 10.0),
        ("peer", 1, 20.0),
        ("ours", 2, 1.0),
        ("peer", 2, 4.0),
    ]
    table = _table(bench, [(*row, "") for row in rows])
    found = bench.ratio(table, "ours", "peer", "seconds")
    assert (found.value, found.low, found.high, found.n) == (3.0, 2.0, 4.0, 3)


def test_a_round_in_which_one_side_failed_gives_no_ratio(bench):
    table = _table(bench, [("ours", 0, 1.0, ""), ("peer", 0, 3.0, "ended with 1")])
    with pytest.raises(ValueError, match="no round"):
        bench.ratio(table, "ours", "peer", "seconds")


def test_what_a_program_says_itself_is_a_column_too(bench):
    output = [
        bench.Program(name, python(f"print('{{\"step\": {step}}}')")) for name, step in (("ours", 2), ("peer", 5))
    ]
    assert bench.ratio(bench.interleaved(output, 1, 1), "ours", "peer", "step").value == 2.5


def test_a_section_of_the_page_is_exchanged_and_the_rest_kept(bench):
    replaced = importlib.import_module("recorded").replaced
    page = "# Benchmarks\n\nkept above\n"
    first = replaced(page, "reading", "## Reading\n\nold\n")
    both = replaced(first, "other", "## Other\n\nbeside\n")
    again = replaced(both, "reading", "## Reading\n\nnew \\1\n")
    assert "old" not in again
    assert again.startswith(page)
    assert again.index("new \\1") < again.index("beside")
    assert replaced(again, "reading", "## Reading\n\nnew \\1\n") == again


def test_figures_are_recorded_with_machine_and_command(bench, tmp_path, monkeypatch):
    monkeypatch.setattr(sys, "argv", ["bench/trial.py", "--record"])
    bench.record("trial", "A trial", "| a |\n|---|\n| 1 |", {"runs": [1]}, pages=tmp_path, results=tmp_path)
    assert re.search(r"By `python bench/trial.py --record` on 20\d\d-.+ Machine: ", (tmp_path / "trial.md").read_text())
    assert '"runs": [\n  1\n ]' in (tmp_path / "trial.json").read_text()


def test_a_part_is_recorded_on_the_page_that_holds_it(bench, tmp_path):
    page = tmp_path / "speed.md"
    page.write_text("# Speed\n\n<!-- bench:trial -->\nold\n<!-- /bench:trial -->\n")
    bench.record("trial", "A trial", "new", {}, pages=tmp_path, results=tmp_path)
    assert "\nold\n" not in page.read_text() and "\nnew\n" in page.read_text()
    assert not (tmp_path / "trial.md").exists()


def test_every_record_has_its_section_on_one_page(bench):
    recorded = importlib.import_module("recorded")
    parts = sorted(path.stem for path in recorded.RESULTS.glob("*.json"))
    assert parts and all(recorded.page_of(part).is_file() for part in parts)


def test_a_figure_that_is_no_number_is_recorded_as_absent(bench, tmp_path):
    table = bench.interleaved([bench.Program("missing", ["/nowhere/program"])], 1, 1)
    bench.record("trial", "A trial", "none", {"runs": table.to_dict("records")}, pages=tmp_path, results=tmp_path)
    assert '"seconds": null' in (tmp_path / "trial.json").read_text()


def test_a_peer_takes_our_versions_but_those_it_gives_itself(bench):
    environment = importlib.import_module("environment")
    pins = environment._constraints(BENCH / "peers" / "nnunet.txt").splitlines()
    assert any(pin.startswith("torch===") for pin in pins)
    assert not any(pin.startswith("timm=") for pin in pins)


def test_a_peer_that_nobody_described_is_refused_by_name(bench):
    with pytest.raises(bench.PeerError, match=r"no peer 'unheard_of'.*nnunet"):
        bench.peer("unheard_of")


def test_every_part_says_what_it_measures_and_has_a_trial(bench):
    parts = importlib.import_module("all").parts()
    assert {"reading", "nnunet_prediction", "training_steps", "time_to_dice"} <= set(parts)
    for part in parts:
        text = (BENCH / f"{part}.py").read_text()
        assert f"bench/{part}.py" in text.split('"""')[1]
        assert "arguments(" in text or "--small" in text


def _table(bench, rows):
    columns = ["program", "repeat", "seconds", "problem"]
    return importlib.import_module("pandas").DataFrame(rows, columns=columns).assign(said=None)


@pytest.mark.whole
def test_every_kind_has_an_example_and_one_that_fails_or_lacks_its_data_is_said(monkeypatch, tmp_path, capfd):
    monkeypatch.syspath_prepend(str(BENCH))
    examples = importlib.import_module("examples")
    assert set(index.TASKS) <= {example.kind for example in examples.EXAMPLES.values()}
    trained.pictures(tmp_path / "data" / "pictures", 12)
    (tmp_path / "data" / "none").mkdir()
    given = {
        "pictures": examples.Example("classification", "pictures", "bright or dark"),
        "broken": examples.Example("classification", "none", "nothing at all"),
        "absent": examples.Example("survival", "elsewhere", "nobody"),
    }
    monkeypatch.setattr(examples, "EXAMPLES", given)
    words = ["--data", str(tmp_path / "data"), "--out", str(tmp_path / "examples"), "--steps", "2", "--threads", "1"]
    monkeypatch.setattr(sys, "argv", ["examples.py", *words])
    with pytest.raises(SystemExit) as ended:
        examples.main()
    assert ended.value.code == 1
    output = capfd.readouterr().out
    assert "| pictures | pictures: bright or dark | auroc " in output
    assert str(tmp_path / "examples" / "pictures" / "report.html") in output
    assert str(tmp_path / "examples" / "pictures-evaluation" / "report.html") in output
    looks = {path.name for path in (tmp_path / "examples" / "pictures-evaluation").iterdir()}
    assert {"explanations.csv", "robustness.csv"} <= looks
    assert "| broken | none: nothing at all | failed with exit code 1: see broken.err in logs/ |" in output
    assert "elsewhere is not there" in output
    assert "| detection |  | no data are named in bench/examples.py |" in output


def test_a_published_row_is_reached_by_the_mean_of_three_seeds_and_never_by_fewer(bench):
    medmnist = importlib.import_module("medmnist")
    assert medmnist._reached(0.752, 0.750, seeds=1) == "not said: 1 of 3 seeds"
    assert medmnist._reached(0.750, 0.750, seeds=3) == "yes"
    assert medmnist._reached(0.744, 0.750, seeds=3) == "no: 0.006 short"


def test_each_side_of_the_same_bits_has_the_package_that_its_commit_names(monkeypatch, tmp_path):
    monkeypatch.syspath_prepend(str(BENCH))
    same_bits = importlib.import_module("same_bits")
    assert same_bits.package_of(BENCH.parent) == hilum.__name__
    (tmp_path / "pyproject.toml").write_text('[project]\nname = "earlier"\n', encoding="utf-8")
    assert same_bits.package_of(tmp_path) == "earlier"


def test_the_same_bits_are_compared_for_every_kind_and_an_unknown_commit_is_refused(monkeypatch):
    monkeypatch.syspath_prepend(str(BENCH))
    same_bits = importlib.import_module("same_bits")
    kinds = {name: task_catalogue.task_class(name) for name in task_catalogue.task_names()}
    picked = {
        name
        for name, kind in kinds.items()
        if properties.learns_from_references(kind) and not (kind.answers_pairs or kind.by_name)
    }
    assert picked < set(same_bits.KINDS)  # which has one made of several as well
    monkeypatch.setattr(sys, "argv", ["same_bits.py", "--base", "no-such-commit"])
    with pytest.raises(SystemExit, match="--base no-such-commit: fatal: invalid reference"):
        same_bits.main()
    monkeypatch.setattr(sys, "argv", ["same_bits.py", "--situations", "alchemy"])
    with pytest.raises(SystemExit):
        same_bits.main()
