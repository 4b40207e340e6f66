"""The harness of the benchmarks: it runs real programs, and says what failed."""

from __future__ import annotations

import argparse
import importlib
import os
import re
import sys
from contextlib import suppress
from pathlib import Path

import numpy as np
import psutil
import pytest

import trained
from isocenter.tasks import index, properties, task_catalogue

BENCH = Path(__file__).parent.parent / "bench"
# 75 of 100 steps are enough, 74 are not.
FAMILIES_OF_SEEDS = [
    ("unet", 0, 100),
    ("unet", 1, 75),
    ("vit", 0, 200),
    ("vit", 1, 100),
    ("unet", 2, 74),
    ("vit", 2, 9),
]
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


def test_a_simulated_scanner_inverts_or_darkens_within_the_range_and_each_route_has_its_source(bench):
    shift = importlib.import_module("shift")
    values = np.linspace(0, 10, 101)
    inverted, darkened = (shift.SCANNERS[name](values, 0.0, 10.0) for name in (shift.INVERTED, shift.GAMMA))
    np.testing.assert_allclose(inverted, values[::-1])
    np.testing.assert_allclose(darkened[50], 10 * 0.5**3, rtol=0.01)
    cells = list(shift.cells())
    assert len(cells) == len(set(cells))
    assert {cell.data for cell in cells if cell.route == shift.SOURCE} == set(shift.SHIFTS)


def test_few_labels_end_one_draw_of_each_data_set_before_the_next(bench):
    cells = list(importlib.import_module("few_labels").cells(3))
    for data in ("hippocampus", "pneumonia"):
        draws = [cell.draw for cell in cells if cell.data == data and cell.labels]
        assert draws == sorted(draws)
    assert len({cell.name for cell in cells}) == len(cells)


def test_routes_with_few_labels_are_compared_case_by_case_in_the_draws_that_both_have(bench):
    few = importlib.import_module("few_labels")
    dice = {"scratch": [{"a": 0.6, "b": 0.8}, {"a": 0.7, "b": 0.7}, {"a": 0.0, "b": 0.0}], "full": []}
    dice["full"] = [{"a": 0.9, "b": 0.9}, {"a": 0.8, "b": 0.8}]
    made = {
        route: [few.Measured(few.Cell("hippocampus", 5, draw, route), scores) for draw, scores in enumerate(each)]
        for route, each in dice.items()
    }
    sound = {one.cell: one for each in made.values() for one in each}
    assert few._apart(made["full"], sound, "scratch", {}).startswith("+0.150 (")


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


def test_trainings_of_too_few_steps_are_counted_beside_those_of_equal_minutes(bench):
    families = importlib.import_module("families")
    shown = [families.Shown(name, "pneumonia", seed, steps=steps) for name, seed, steps in FAMILIES_OF_SEEDS]
    assert "3 of 6 trainings made fewer than 75 %" in families._slowed(shown)
    assert families._slowed(shown[:2]) == ""


def test_no_case_of_a_sets_test_part_has_a_say_in_how_epochs_are_spent(bench, tmp_path):
    epochs, parts = importlib.import_module("epochs"), {"train": 1000, "val": 100, "test": 30}
    rows = dict(zip(parts, np.split(np.arange(1130, dtype=np.uint16), np.cumsum([*parts.values()])[:-1]), strict=True))
    arrays = {f"{part}_images": np.tile(own[:, None, None], (1, 2, 2)) for part, own in rows.items()}
    labels = {f"{part}_labels": own[:, None] for part, own in rows.items()}
    np.savez(tmp_path / "pneumoniamnist.npz", **arrays, **labels)
    made = [
        np.load(epochs._data("pneumonia-300", 7, argparse.Namespace(data=tmp_path, out=tmp_path / n))) for n in "ab"
    ]
    train, tested = (made[0][f"{part}_images"][:, 0, 0] for part in ("train", "test"))
    assert (len(train), len(tested)) == (300, 600)
    assert set(train).isdisjoint(tested)
    assert {*train, *tested} <= set(rows["train"])
    np.testing.assert_array_equal(made[0]["test_labels"][:, 0], tested)  # each image keeps its own label
    np.testing.assert_array_equal(train, made[1]["train_images"][:, 0, 0])


def test_findings_of_a_grade_are_scored_one_by_one(bench):
    epochs = importlib.import_module("epochs")
    there = np.array([[0, 0], [1, 0], [1, 1], [1, 1]], dtype=float)
    shown = epochs.Scored(np.array([[0.2, 0.8], [0.9, 0.1], [0.8, 0.4], [0.6, 0.6]]), there, several=True).figures
    # The first finding is ranked without a mistake, the second in two of its four pairs.
    assert shown["auroc"] == pytest.approx((1 + 2 / 4) / 2)
    assert shown["accuracy"] == pytest.approx(6 / 8)


def test_more_minutes_are_worse_where_the_same_seeds_lose_more_than_their_spread(bench):
    curves = importlib.import_module("curves")
    found = {(5, 0): 0.88, (5, 1): 0.89, (20, 0): 0.86, (20, 1): 0.87, (60, 0): 0.855}
    points = [curves.Point("gliomas", minutes, seed, "dice", value) for (minutes, seed), value in found.items()]
    # One seed after an hour is compared with itself: .860 to .855 is no more than the spread after 20 minutes.
    assert curves.falls(points) == ["20 below 5 by 0.020", "60 below 5 by 0.025"]
    assert "| 0.885 (0.007), 2 | 0.865 (0.007), 2 | 0.855, 1 |" in curves.words_of(points)


def test_settings_of_small_pictures_are_compared_within_a_draw(bench):
    pictures = importlib.import_module("small_pictures")
    found = {("Isocenter", 0): 0.6, ("Isocenter", 1): 0.7, ("training.epochs=40", 0): 0.55, ("ResNet-18", 2): 0.5}
    shown = [pictures.Shown("retina", seed, name, "", {"auroc": v, "accuracy": v}) for (name, seed), v in found.items()]
    text = pictures.words_of(shown)
    assert "| retina | Isocenter less training.epochs=40 | 1 | +0.050 | +0.050 | |" in text
    assert "Isocenter less ResNet-18" not in text  # no draw has both


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
