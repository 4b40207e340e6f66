"""A run that was stopped in any way goes on as if it had not been."""

from __future__ import annotations

import re
import shutil
import signal
from collections.abc import Callable
from functools import cache, partial
from pathlib import Path

import pandas as pd
import pytest
from safetensors.numpy import load_file

import forked
import hilum
import trained
from hilum.errors import IntegrityError, PlanError, ResourceError, UsageError
from hilum.planning import plan_checks, plan_file
from hilum.training import checkpoint_files
from hilum.values import Decision

# With the channels last, so that what the optimiser keeps must find its way back into that order.
SIX = {"training.steps": 6, "training.validations": 3, "training.compute": "channels-last"}
# What is kept beside the weights of each: how they normalise, what was sampled, what each case cost, terms of the loss.
KINDS = {
    "classification": (trained.pictures, trained.classifying, {}),
    "segmentation": (trained.blobs, trained.segmenting, {}),
    "sampled by loss": (trained.blobs, trained.segmenting, {"training.sampling": "by_loss"}),
    "several tasks": (partial(trained.lesions, known=2), trained.answering_all, {}),
}


def same_run(first: Path, second: Path) -> None:
    """Every tensor of every checkpoint, the log but for its times, and what was measured, bit for bit."""
    names = [path.relative_to(first) for path in (first / "checkpoints").rglob("*.safetensors")]
    assert len(names) >= 4  # the network, its mean and the optimiser at the end, and the best mean
    for name in names:
        ours, theirs = (load_file(run / name) for run in (first, second))
        assert ours.keys() == theirs.keys()
        for key in ours:
            assert ours[key].tobytes() == theirs[key].tobytes(), (name, key)
    logs = [pd.read_csv(run / "log.csv").drop(columns="seconds") for run in (first, second)]
    pd.testing.assert_frame_equal(*logs, check_exact=True)
    assert logs[0]["step"].tolist() == [1, 2, 3, 4, 5, 6]
    for name in ("split.csv", "evaluation/cases.csv", "evaluation/summary.json"):
        assert (first / name).read_text() == (second / name).read_text()


@pytest.fixture(scope="session")
def whole(tmp_path_factory) -> Callable[[str], tuple[Path, Path]]:
    """The data of a kind and an uninterrupted run, made when a test first asks for them."""

    @cache
    def made(kind: str) -> tuple[Path, Path]:
        cohort, train, chosen = KINDS[kind]
        root = tmp_path_factory.mktemp(kind.replace(" ", "_"))
        data = cohort(root / "data")
        train(data, root / "run", assignments={**SIX, **chosen})
        return data, root / "run"

    return made


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.whole
def test_a_run_stopped_between_steps_goes_on_bit_by_bit(whole, kind, tmp_path):
    (data, uninterrupted), (_, train, chosen) = whole(kind), KINDS[kind]

    def pressed(moment):
        if moment.step == 3:
            signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        train(data, tmp_path / "run", assignments={**SIX, **chosen})
    assert not (tmp_path / "run" / "report.html").exists()
    assert pd.read_csv(tmp_path / "run" / "log.csv")["step"].tolist() == [1, 2, 3]
    hilum.train(resume=tmp_path / "run")
    same_run(uninterrupted, tmp_path / "run")
    with pytest.raises(UsageError, match="finished run"):
        hilum.train(resume=tmp_path / "run")


@pytest.mark.whole
def test_the_terms_of_a_loss_that_are_learnt_are_kept(whole):
    assert (whole("several tasks")[1] / "checkpoints" / "last" / "objectives.safetensors").is_file()


@pytest.mark.whole
def test_what_is_sampled_by_loss_is_not_what_is_sampled_at_random(whole):
    losses = [pd.read_csv(whole(kind)[1] / "log.csv")["loss"].tolist() for kind in ("segmentation", "sampled by loss")]
    assert losses[0] != losses[1]


# The last checkpoint is that of step 4.
KILLED = """
import os, signal, sys
sys.path.insert(0, {tests!r})
import trained
from pathlib import Path
def dies(moment):
    if moment.step == 5:
        os.kill(os.getpid(), signal.SIGKILL)
with trained.watching(dies):
    trained.segmenting(Path({data!r}), Path({out!r}), assignments={steps!r})
"""


def test_a_killed_run_goes_on_bit_by_bit(whole, tmp_path):
    data, uninterrupted = whole("segmentation")
    tests, out = Path(trained.__file__).parent, tmp_path / "run"
    done = forked.run("-c", KILLED.format(tests=str(tests), data=str(data), out=str(out), steps=SIX))
    assert done.returncode == -signal.SIGKILL, done.stderr
    assert pd.read_csv(tmp_path / "run" / "log.csv")["step"].tolist() == [1, 2, 3, 4, 5]
    hilum.train(resume=tmp_path / "run")
    same_run(uninterrupted, tmp_path / "run")


@pytest.fixture
def stopped(whole, tmp_path) -> Path:
    """A copy of a run as a kill after training, before the report, would have left it."""
    run = Path(shutil.copytree(whole("segmentation")[1], tmp_path / "run"))
    (run / "report.html").unlink()
    return run


def test_a_run_killed_while_it_was_evaluated_is_evaluated_anew(whole, stopped):
    shutil.copytree(whole("segmentation")[0], stopped.parent / "data")
    text = (stopped / "plan.yaml").read_text()
    (stopped / "plan.yaml").write_text(text.replace("data: ../data", f"data: {stopped.parent / 'data'}"))
    hilum.train(resume=stopped)
    same_run(whole("segmentation")[1], stopped)


def test_a_run_whose_data_changed_is_not_resumed(whole, stopped):
    data = Path(shutil.copytree(whole("segmentation")[0], stopped.parent / "data"))
    (data / "labels" / "case00.nii.gz").unlink()
    (data / "images" / "case00.nii.gz").unlink()
    with pytest.raises(IntegrityError, match="changed since the run began"):
        hilum.train(resume=stopped)


def edit(path: Path, pattern: str, new: str) -> None:
    """One place of a file, written otherwise."""
    text, count = re.subn(pattern, new, path.read_text(), count=1)
    assert count
    path.write_text(text)


def test_a_plan_or_split_that_was_edited_while_a_run_waited_is_refused_by_name(stopped):
    split = (stopped / "split.csv").read_text()
    edit(stopped / "split.csv", ",test,", ",train,")
    with pytest.raises(PlanError, match=r"edited since the run began: split\.csv\. .*--accept changes"):
        hilum.train(resume=stopped)
    header, *rows = split.splitlines()
    (stopped / "split.csv").write_text("\r\n".join([header, *reversed(rows)]))  # as a spreadsheet saves it
    edit(stopped / "plan.yaml", r"\n  learning_rate: \{value: [^,]+", "\n  learning_rate: {value: 0.0123")
    with pytest.raises(PlanError, match=r"edited since the run began: training\.learning_rate of plan\.yaml\."):
        hilum.train(resume=stopped)
    with pytest.raises(UsageError, match="--accept cannot be given with a run to resume"):
        hilum.train(resume=stopped, accept="mixed-scale")


def test_a_run_goes_on_with_accepted_changes_and_says_so(stopped, whole):
    edit(stopped / "plan.yaml", r"data: \.\./data", f"data: {whole('segmentation')[0]}")
    edit(stopped / "plan.yaml", r"\n  threads: \{value: [^,]+", "\n  threads: {value: 2")
    edit(stopped / "plan.yaml", r"\n  learning_rate: \{value: [^,]+", "\n  learning_rate: {value: 0.0123")
    edit(stopped / "split.csv", ",train,", ",val,")
    run = hilum.train(resume=stopped, accept="changes")
    [note] = [one for one in run.notes if one.startswith("Changed by hand after the training had begun")]
    assert "training.learning_rate" in note
    assert "split.csv (1 case from train to val)" in note
    assert "split.csv (1 case from train to val)" in run.report.read_text()
    moved = plan_file.read_plan(stopped / "plan.yaml").decision("split.parts").because
    assert moved == "set by hand: 1 case from train to val, after the training had begun"
    decision = plan_file.read_plan(stopped / "plan.yaml").decision("training.learning_rate")
    assert (decision.value, decision.because) == (0.0123, "set by hand, after the training had begun")


def test_a_checkpoint_that_a_kill_left_half_replaced_is_put_in_place(tmp_path):
    room = tmp_path / ".last.abc.partial"
    for name in ("replaced", "last"):
        (room / name).mkdir(parents=True)
        (room / name / "state.json").write_text(name)
    checkpoint_files.recover_run(tmp_path)
    assert (tmp_path / "last" / "state.json").read_text() == "last"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_checkpoint_that_a_kill_cut_short_is_cleared_away(tmp_path):
    (tmp_path / ".last.abc.partial" / "last").mkdir(parents=True)
    (tmp_path / "last").mkdir()
    (tmp_path / "last" / "state.json").write_text("whole")
    checkpoint_files.recover_run(tmp_path)
    assert (tmp_path / "last" / "state.json").read_text() == "whole"
    assert [path.name for path in tmp_path.iterdir()] == ["last"]


def test_a_folder_without_a_run_cannot_be_resumed(tmp_path):
    with pytest.raises(UsageError, match="holds no run"):
        hilum.train(resume=tmp_path)


def test_a_run_of_a_gpu_that_is_not_here_says_how_it_goes_on(segmented, tmp_path):
    plan = plan_file.read_plan(segmented.out / "plan.yaml").with_decision(
        "training.device", Decision("cuda:97", "asked for")
    )
    (tmp_path / "plan.yaml").write_text(plan_file.plan_text(plan), encoding="utf-8")
    with pytest.raises(ResourceError, match=r"cuda:97 is not available.*training\.device of .*plan\.yaml"):
        hilum.train(resume=tmp_path)


def test_what_a_resumed_run_would_not_heed_is_refused(stopped):
    with pytest.raises(UsageError, match="--minutes cannot"):
        hilum.train(resume=stopped, minutes=5.0)
    with pytest.raises(UsageError, match=r"--set training\.steps cannot"):
        hilum.train(resume=stopped, assignments={"training.steps": 9})


@pytest.mark.parametrize(
    "flags",
    [
        ("--all",),
        ("--seed", "0"),
        ("--tune", "5"),
        ("--covariates", "age"),
        ("--from", "model"),
        ("--overwrite",),
        ("--fill-missing",),
    ],
)
def test_a_flag_that_a_resumed_run_would_not_heed_is_refused_as_it_was_typed(cli, tmp_path, flags):
    ended = cli("train", "--resume", tmp_path, *flags)
    assert ended.code == 2
    assert f"{flags[0]} cannot be given with a run to resume" in ended.last


@pytest.mark.whole
def test_a_fine_tuning_stopped_before_its_first_checkpoint_still_begins_from_its_model(whole, tmp_path):
    data, model = whole("segmentation")
    trained.segmenting(data, tmp_path / "whole", assignments=SIX, start=model)

    def killed(moment):
        raise RuntimeError("the machine went down")

    with trained.watching(killed), pytest.raises(RuntimeError, match="went down"):
        trained.segmenting(data, tmp_path / "run", assignments=SIX, start=model)
    hilum.train(resume=tmp_path / "run")
    same_run(tmp_path / "run", tmp_path / "whole")


def test_what_a_killed_process_has_left_half_written_anywhere_in_a_run_is_cleared_away(tmp_path):
    for folder in (tmp_path, tmp_path / "fold_0" / "checkpoints"):
        half = folder / ".evaluation.k2j3h4g5.partial" / "evaluation"
        half.mkdir(parents=True)
        (half / "cases.csv").write_text("half")
    (tmp_path / "fold_0" / "split.csv").write_text("whole")
    checkpoint_files.recover_run(tmp_path)
    assert [path.name for path in tmp_path.rglob("*") if path.is_file()] == ["split.csv"]


@pytest.mark.whole
def test_a_run_ended_now_is_evaluated_with_the_best_weights_that_it_had(tmp_path):
    def pressed(moment):
        if moment.step == 4:
            signal.raise_signal(signal.SIGINT)

    data, out = trained.blobs(tmp_path / "data", 8), tmp_path / "run"
    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        trained.segmenting(data, out, assignments=SIX)
    best = load_file(checkpoint_files.best_checkpoint(out) / "weights.safetensors")
    ended = hilum.train(resume=out, end_now=True)
    assert pd.read_csv(out / "log.csv")["step"].tolist() == [1, 2, 3, 4]
    assert (ended.steps, ended.report.is_file()) == (4, True)
    assert any("A person ended the training after step 4 of 6" in one for one in ended.notes)
    assert ended.rows[0].estimate.n > 0
    after = load_file(checkpoint_files.best_checkpoint(out) / "weights.safetensors")
    assert all(best[name].tobytes() == after[name].tobytes() for name in best)
    with pytest.raises(UsageError, match="finished run"):
        hilum.train(resume=out, end_now=True)


def test_a_training_that_is_ended_leaves_its_best_weights_and_says_where(segmented, tmp_path):
    shutil.copytree(segmented.out / "checkpoints", tmp_path / "checkpoints")
    checkpoint_files.rewrite_training(checkpoint_files.last_checkpoint(tmp_path), {}, {"step": 1})
    settings = plan_checks.checked_settings(plan_file.read_plan(segmented.out / "plan.yaml"))
    assert checkpoint_files.finished_outcome(tmp_path, settings) is None
    checkpoint_files.end_training(tmp_path)
    outcome = checkpoint_files.finished_outcome(tmp_path, settings)
    assert outcome.checkpoint == checkpoint_files.best_checkpoint(tmp_path)
    assert outcome.stopped.startswith("a person ended the training after step 1 of ")


def test_a_run_that_has_not_begun_or_has_learnt_nothing_is_not_ended(tmp_path):
    with pytest.raises(UsageError, match="ends a run that was begun"):
        hilum.train(tmp_path, out=tmp_path / "run", end_now=True)
