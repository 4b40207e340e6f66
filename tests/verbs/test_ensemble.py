from __future__ import annotations

import csv
import json
import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose

import hilum
from hilum.errors import DatasetError, IntegrityError, UsageError
from hilum.planning import plan_file
from hilum.runs import run_folder
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import ModelRequest, record_files
from hilum.runtime.ensemble import MEMBERS
from hilum.tasks import task_settings
from hilum.verbs import ensemble_members
from hilum.verbs.ensemble_members import EnsembleMember
from packages import bundle_checked_and_run

torch.set_num_threads(1)

LENET = {"training.steps": 60, "training.validations": 1, "split.seed": 0, "network.name": "lenet", "network.size": {}}


@pytest.fixture(scope="module")
def runs(classified, tmp_path_factory) -> tuple[Path, Path]:
    """A small residual network, and a LeNet of another seed on the same parts."""
    other = tmp_path_factory.mktemp("runs") / "lenet"
    given = {"device": "cpu", "threads": 1, "seed": 3, "assignments": {**LENET, "training.batch": 8}}
    hilum.train(classified.data, out=other, **given)
    return classified.out, other


@pytest.fixture(scope="module")
def mixed(runs, tmp_path_factory):
    """An ensemble of both."""
    return hilum.ensemble(runs, out=tmp_path_factory.mktemp("ensembles") / "mixed", device="cpu")


def picture(classified) -> Path:
    return sorted((classified.data / "bright").glob("*.png"))[0]


def test_networks_of_two_families_and_seeds_give_the_mean_of_their_probabilities(runs, mixed, classified):
    both = hilum.load(mixed.out, device="cpu")
    assert both.networks.families == "resnet, lenet"
    assert "resnet, lenet in 2D" in repr(both)
    each = [hilum.load(run, device="cpu").predict(picture(classified)).confidence.uncalibrated for run in runs]
    single = [
        hilum.load(mixed.out, device="cpu", fold=n).predict(picture(classified)).confidence.uncalibrated for n in (0, 1)
    ]
    found = both.predict(picture(classified)).confidence.uncalibrated
    for name in found:
        assert found[name] == pytest.approx(np.mean([one[name] for one in each]), abs=1e-6)
        assert single[1][name] == pytest.approx(each[1][name])
    with pytest.raises(UsageError, match="has no fold 2"):
        hilum.load(mixed.out, device="cpu", fold=2)


def test_the_page_of_an_ensemble_states_the_hash_of_the_model_as_it_is_loaded(mixed):
    assert hilum.load(mixed.out).sha256 in (mixed.out / "report.html").read_text(encoding="utf-8")


def test_few_validation_patients_leave_members_equal_and_the_report_says_so(mixed):
    assert mixed.weights == {"run": 0.5, "lenet": 0.5}
    assert "cannot tell members apart" in mixed.because
    page = mixed.report.read_text()
    assert "Members" in page
    assert "cannot tell members apart" in page
    assert "lenet less ensemble" in page
    assert "Where the interval of a difference includes 0" in page and "significance test" not in page
    assert "paired patient bootstrap" in json.dumps(mixed.as_record()["beside"]).replace("case", "patient")
    assert "weights: run 0.50, lenet 0.50" in repr(mixed)
    assert mixed.verdict.answer in repr(mixed)
    assert [(row.metric, row.label) for row in mixed.headline] == [("auroc", "all")]


@pytest.mark.whole
def test_an_ensemble_is_evaluated_on_its_data_and_compared_as_a_run_is(mixed, runs, classified, tmp_path):
    again = hilum.evaluate(mixed.out, classified.data, device="cpu", out=tmp_path / "again")
    assert again.which == "the test cases of the run's own data"
    ours = {(row.metric, row.label): row.estimate.value for row in mixed.rows}
    theirs = {(row.metric, row.label): row.estimate.value for row in again.rows}
    assert_allclose(list(theirs.values()), [ours[key] for key in theirs], atol=1e-6)
    found = hilum.compare([runs[0], mixed.out])
    assert found.names == ("run", "mixed")
    assert found.cases == 8


def test_members_stand_beside_the_ensemble_as_their_own_evaluations_scored_them(mixed, runs):
    compared = {row.metric: row for row in mixed.comparison.rows if row.label == "all"}
    assert mixed.comparison.names == ("ensemble", "run", "lenet")
    for place, run in enumerate(runs, start=1):
        rows = json.loads((run / "evaluation" / "summary.json").read_text())["rows"]
        known = {row["metric"]: row["value"] for row in rows if row["label"] == "all"}
        assert compared["brier"].estimates[place].value == pytest.approx(known["brier"])


@pytest.mark.whole
def test_an_ensemble_is_audited_itself_and_repeats_nothing_of_its_members_figures(runs, mixed, classified, tmp_path):
    weak = pd.read_csv(mixed.out / "evaluation" / "weak_groups.csv")
    assert {"source", "attribute", "judged"} <= set(weak.columns)
    copies = [Path(shutil.copytree(run, tmp_path / run.name)) for run in runs]
    of_training, of_figures = "3 cases left out of training: nearly the same image is held out.", "It fails more in B."
    for copy in copies:
        record = json.loads((copy / "run.json").read_text())
        record |= {"notes": [of_figures, of_training], "of_figures": [of_figures]}
        (copy / "run.json").write_text(json.dumps(record))
    made = hilum.ensemble(copies, out=tmp_path / "mixed", data=classified.data, device="cpu")
    assert of_training in made.notes
    assert of_figures not in made.notes


@pytest.fixture(scope="module")
def uneven(mixed, tmp_path_factory) -> Path:
    """The ensemble with members that count 3 to 7."""
    folder = tmp_path_factory.mktemp("uneven") / "ensemble"
    shutil.copytree(mixed.out, folder)
    place = folder / MEMBERS / "ensemble.json"
    place.write_text(place.read_text().replace('"shares": null', '"shares": [0.3, 0.7]'))
    record_files.seal_folder(folder / MEMBERS)
    return folder


@pytest.fixture(scope="module")
def package(uneven, tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("packages") / "ensemble"
    made = hilum.package(uneven, out=folder, backends=())
    assert made.onnx["exported"], made.onnx
    assert made.networks == 2
    return folder


def by_shares(runs, image: Path) -> dict[str, float]:
    """The weighted mean of what each member says alone, before any calibration."""
    each = [hilum.load(run, device="cpu").predict(image).confidence.uncalibrated for run in runs]
    return {name: 0.3 * each[0][name] + 0.7 * each[1][name] for name in each[0]}


@pytest.mark.whole
def test_an_ensemble_and_its_package_count_members_by_their_weights_in_torch_and_onnx(
    runs, uneven, package, classified
):
    wanted = by_shares(runs, picture(classified))
    prediction = hilum.load(uneven, device="cpu").predict(picture(classified))
    assert prediction.confidence.uncalibrated == pytest.approx(wanted)
    for backend in ("torch", "onnx"):
        found = hilum.load(package, device="cpu", backend=backend).predict(picture(classified))
        assert found.confidence.uncalibrated == pytest.approx(wanted, abs=1e-5)
        assert found.probabilities == pytest.approx(prediction.probabilities, abs=1e-5)
    one, single = (hilum.load(place, device="cpu", fold=1) for place in (package, uneven))
    assert type(one.networks.run.module) is type(single.networks.run.module)
    alone = [model.predict(picture(classified)).confidence.uncalibrated for model in (one, single)]
    assert alone[0] == pytest.approx(alone[1], abs=1e-6)


@pytest.mark.whole
def test_the_bundle_of_an_ensemble_of_two_families_runs_without_hilum_and_says_the_same(package, classified, tmp_path):
    (tmp_path / "images").mkdir()
    image = Path(shutil.copy(picture(classified), tmp_path / "images"))
    done = bundle_checked_and_run(package, tmp_path / "images", tmp_path / "out" / "results")
    assert done.returncode == 0, done.stderr
    with (tmp_path / "out" / "results" / "predictions.csv").open(newline="") as file:
        [row] = csv.DictReader(file)
    stated = {name: float(row[f"probability_{name}"]) for name in ("bright", "dark")}
    assert stated == pytest.approx(hilum.load(package, device="cpu").predict(image).probabilities, abs=1e-5)
    assert "resnet, lenet" in (package / "docs" / "README.md").read_text()


@pytest.fixture(scope="module")
def opposed(runs, tmp_path_factory) -> list[Path]:
    """Two copies of a run, one of which says the opposite; 15 of their cases select."""
    folder, found = tmp_path_factory.mktemp("opposed"), []
    for name, factor in (("as it is", 1.0), ("opposite", -1.0)):
        run = folder / name
        shutil.copytree(runs[1], run)
        with_validation_cases(run, 15)
        changed(
            run / "checkpoints" / "best", lambda key, one, by=factor: one * by if key.startswith("vectors") else one
        )
        found.append(run)
    return found


def changed(checkpoint: Path, change: Callable[[str, torch.Tensor], torch.Tensor]) -> None:
    """Each tensor of a checkpoint becomes another."""
    tensors = record_files.read_tensors(checkpoint / "weights.safetensors")
    record_files.write_tensors(
        checkpoint / "weights.safetensors", {key: change(key, one) for key, one in tensors.items()}
    )
    record_files.seal_folder(checkpoint)


def with_validation_cases(run: Path, count: int) -> None:
    """As many of the run's training cases as that become validation cases."""
    table = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False)
    changed = table.index[table["split"] == "train"][: count - int((table["split"] == "val").sum())]
    table.loc[changed, "split"] = "val"
    table.to_csv(run / "split.csv", index=False)


@pytest.mark.whole
def test_weights_are_fitted_where_that_surely_pays_and_thresholds_are_found_anew(opposed, classified, tmp_path):
    found = hilum.ensemble(opposed, out=tmp_path / "fitted", device="cpu", data=classified.data)
    assert set(found.weights) == {"as it is", "opposite"}
    assert max(found.weights.values()) > 0.9, found.because
    assert "15 validation cases in 5 parts" in found.because
    assert "no case has a say in both the weights and the thresholds" in found.report.read_text()
    plan = (found.out / "plan.yaml").read_text()
    assert "Youden" in plan or "youden" in plan
    # The one that has all the weight, with what was found for the ensemble and not what its own training found.
    assert list(found.weights.values()) == [1.0, 0.0]
    settings = task_settings.settings_of(hilum.load(found.out, device="cpu").task)
    assert settings["thresholds"] == plan_file.read_plan(found.out / "plan.yaml")["task.thresholds"]
    assert settings["calibration"]["cases"] == 15


@pytest.mark.whole
def test_members_of_two_seeds_mark_voxels_together(segmented, tmp_path):
    other = tmp_path / "other"
    shutil.copytree(segmented.out, other)
    changed(other / "checkpoints" / "best", lambda key, one: 1.3 * one)
    found = hilum.ensemble([segmented.out, other], out=tmp_path / "both", device="cpu")
    image = sorted((segmented.data / "images").glob("*.nii.gz"))[0]
    parts = []
    for path in (segmented.out, other, tmp_path / "both"):
        seen = np.zeros((3, 16, 16, 16))

        def collect(region, arrays, seen=seen):
            seen[(slice(None), *region)] = arrays["mask"]

        hilum.load(path, device="cpu").predict(image, ModelRequest(mirror=False), receiver=collect)
        parts.append(seen)
    assert found.comparison.primary == "dice"
    assert parts[2].shape == parts[0].shape
    assert abs(parts[2] - (parts[0] + parts[1]) / 2).max() < 0.05


MEMBER = {"plan": None, "checkpoints": (), "models": (), "data": None}
PARTS = st.sampled_from(["train", "val", "test"])


def member(name: str, parts: dict[str, str], owners: dict[str, str] | None = None) -> EnsembleMember:
    """Of a split alone: each case, c0 on, is its own patient's unless somebody says otherwise."""
    owners = owners or {case: f"p{case}" for case in parts}
    rows = [{"case": case, "patient": owners[case], "split": part, "fold": "0"} for case, part in parts.items()]
    return EnsembleMember(name=name, run=Path(name), split=pd.DataFrame(rows), **MEMBER)


@given(st.lists(st.lists(PARTS, min_size=8, max_size=8), min_size=2, max_size=4), st.integers(1, 3))
@pytest.mark.whole
def test_no_member_was_trained_or_selected_on_a_test_patient_nor_trained_on_a_validation_patient(splits, joint):
    owners = {f"c{n}": f"p{n // joint}" for n in range(8)}
    by_patient = [{case: split[int(owner[1:])] for case, owner in owners.items()} for split in splits]
    members = [member(f"m{n}", split, owners) for n, split in enumerate(by_patient)]
    leaking = any(
        "train" in {split[case] for split in by_patient} and "test" in {split[case] for split in by_patient}
        for case in owners
    )
    if leaking:
        with pytest.raises(UsageError, match=r"test patients? of m[0-9] trained m[0-9]"):
            ensemble_members.parts_of_all(members)
        return
    parts = ensemble_members.parts_of_all(members)
    for case in owners:
        roles = {split[case] for split in by_patient}
        assert parts[case] == ("train" if "train" in roles else "val" if "val" in roles else "test")


def test_folds_leave_their_own_test_part_and_nothing_to_select_on():
    table = [("a", "train", "0"), ("a", "test", "1"), ("b", "test", "0"), ("b", "val", "1"), ("c", "test", "")]
    table += [("b", "train", "2")]
    rows = [{"case": case, "patient": case, "split": part, "fold": fold} for case, part, fold in table]
    folds = EnsembleMember(name="folds", run=Path("folds"), split=pd.DataFrame(rows), **MEMBER)
    other = member("other", {"a": "train", "b": "val", "c": "test"}, {"a": "a", "b": "b", "c": "c"})
    assert ensemble_members.parts_of_all([folds, other]) == {"a": "train", "b": "train", "c": "test"}


def test_a_case_that_one_member_left_out_and_members_that_disagree_about_patients():
    one = member("one", {"c0": "train", "c1": "val", "c2": "test"})
    assert ensemble_members.parts_of_all([one, member("two", {"c0": "train", "c1": "val"})]) == {
        "c0": "train",
        "c1": "val",
    }
    with pytest.raises(UsageError, match="some case to another patient"):
        ensemble_members.parts_of_all([one, member("two", {"c0": "train"}, {"c0": "somebody"})])


@pytest.mark.whole
def test_runs_that_cannot_be_one_are_refused_with_what_differs_and_what_to_do(
    runs, mixed, segmented, classified, tmp_path
):
    def refused(paths, match, **given):
        with pytest.raises((UsageError, DatasetError), match=match):
            hilum.ensemble(paths, out=tmp_path / "out", device="cpu", **given)
        assert not (tmp_path / "out").exists()

    refused(runs[:1], "1 run given")
    refused([runs[0], runs[0]], "given twice")
    refused([runs[0], tmp_path / "nowhere"], "no such file or folder")
    refused([runs[0], mixed.out], "is an ensemble itself")
    refused([runs[0], classified.data], "holds no run")
    refused(runs, "there are no weights 'best'", weights="best")
    refused([runs[0], segmented.out], r"segmenting\d*/run was trained on other data than")
    for name, column, change in (
        ("other split", "split", {"test": "train"}),
        ("other patients", "patient", {"00": "somebody"}),
    ):
        shutil.copytree(runs[1], tmp_path / name)
        table = pd.read_csv(tmp_path / name / "split.csv", dtype=str, keep_default_na=False)
        table[column] = table[column].replace(change)
        assert set(change.values()) <= set(table[column]), table
        table.to_csv(tmp_path / name / "split.csv", index=False)
    shutil.copytree(runs[1], tmp_path / "unfinished")
    (tmp_path / "unfinished" / "report.html").unlink()
    refused([runs[0], tmp_path / "other split"], r"8 test patients of run trained other split.*split\.seed=N")
    refused([runs[0], tmp_path / "other patients"], "to another patient than run")
    refused([runs[0], tmp_path / "unfinished"], "is not finished")
    shutil.copytree(runs[1], tmp_path / "other windows")
    checkpoint = tmp_path / "other windows" / "checkpoints" / "best"
    record = json.loads((checkpoint / "model.json").read_text())
    record["preprocessing"]["modality"], record["task"]["prior_shift"] = "CT", {"dark": 1.0}
    (checkpoint / "model.json").write_text(json.dumps(record))
    record_files.seal_folder(checkpoint)
    refused([runs[0], tmp_path / "other windows"], r"other windows differs from run: preprocessing\.modality")
    record["preprocessing"]["modality"] = "unknown"
    (checkpoint / "model.json").write_text(json.dumps(record))
    record_files.seal_folder(checkpoint)
    refused([runs[0], tmp_path / "other windows"], r"task\.prior_shift is \{'dark': 1.0\}, not None")
    first, second = sorted((shutil.copytree(classified.data, tmp_path / "moved") / "bright").glob("*.png"))[:2]
    shutil.copyfile(second, first)
    refused(runs, "1 case changed since", data=tmp_path / "moved")
    first.unlink()
    refused(runs, "1 case of .* no longer there", data=tmp_path / "moved")


def test_a_member_or_a_weight_that_was_changed_is_not_loaded(mixed, tmp_path):
    shutil.copytree(mixed.out, tmp_path / "changed")
    place = tmp_path / "changed" / MEMBERS / "ensemble.json"
    place.write_text(place.read_text().replace('"shares": null', '"shares": [0.9, 0.1]'))
    with pytest.raises(IntegrityError, match="is not the file that was written"):
        hilum.load(tmp_path / "changed")
    place.write_text(place.read_text().replace("0.9", "0.7"))
    with pytest.raises(IntegrityError, match="are not shares of 2 members"):
        hilum.load(tmp_path / "changed")


@pytest.mark.whole
def test_on_the_command_line_as_in_python(runs, cli, tmp_path, mixed):
    done = cli("ensemble", *runs, "--out", tmp_path / "e", "--weights", "equal", "--device", "cpu", "--json")
    assert done.code == 0, done.err
    assert json.loads(done.out)["weights"] == mixed.weights
    assert json.loads(done.out)["because"] == "equal: asked for"
    assert cli("ensemble", *runs, "--out", tmp_path / "e", "--device", "cpu").code == 2


@pytest.mark.whole
def test_the_folds_of_a_member_share_its_weight_alike_and_have_no_validation_case_in_common(runs, classified, tmp_path):
    folds = tmp_path / "folds"
    shutil.copytree(runs[1], folds)
    for fold in ("fold_0", "fold_1"):
        shutil.copytree(folds / "checkpoints", folds / fold / "checkpoints")
    shutil.rmtree(folds / "checkpoints")
    changed(folds / "fold_1" / "checkpoints" / "best", lambda key, one: one * 0.5)
    table = pd.read_csv(folds / "split.csv", dtype=str, keep_default_na=False)
    held, rest = table[table["split"] == "test"].assign(fold=""), table[table["split"] != "test"]
    other = rest.assign(fold="1", split=rest["split"].map({"val": "train", "train": "train"}))
    pd.concat([rest, other, held]).to_csv(folds / "split.csv", index=False)
    found = hilum.ensemble([runs[0], folds], out=tmp_path / "out", device="cpu", data=classified.data)
    assert "no case is left that no member was trained on, because every fold of folds selected" in found.because
    page = found.report.read_text()
    assert "The folds of a run count alike" in page
    assert "No validation case is left by which thresholds" in page and "were found on the validation" not in page
    model = hilum.load(found.out, device="cpu")
    assert model.networks.shares == (0.5, 0.25, 0.25)
    single = [
        hilum.load(found.out, device="cpu", fold=n).predict(picture(classified)).confidence.uncalibrated
        for n in range(3)
    ]
    wanted = {name: np.dot(model.networks.shares, [one[name] for one in single]) for name in single[0]}
    assert model.predict(picture(classified)).confidence.uncalibrated == pytest.approx(wanted, abs=1e-6)


@pytest.mark.whole
def test_where_no_case_is_left_nothing_is_estimated_and_the_ensemble_predicts_nevertheless(runs, classified, tmp_path):
    everything = []
    for place, run in enumerate(runs):
        everything.append(tmp_path / f"all {place}")
        shutil.copytree(run, everything[-1])
        table = pd.read_csv(run / "split.csv", dtype=str, keep_default_na=False)
        table.assign(split="train").to_csv(everything[-1] / "split.csv", index=False)
    found = hilum.ensemble(everything, out=tmp_path / "out", device="cpu", data=classified.data)
    assert found.rows == ()
    assert found.comparison is None
    assert "Every case was trained on: nothing is estimated." in found.notes
    assert "nothing is estimated" in found.report.read_text()
    assert hilum.load(found.out, device="cpu").predict(picture(classified)).probabilities is not None


@pytest.mark.whole
def test_runs_of_other_seeds_have_the_same_parts_where_the_split_has_a_seed_of_its_own(classified, tmp_path):
    first = hilum.plan(classified.data, seed=0, device="cpu")
    same = hilum.plan(classified.data, seed=1, device="cpu", assignments={"split.seed": 0}, out=tmp_path / "plan.yaml")
    assert hilum.plan(classified.data, seed=1, device="cpu").parts != first.parts
    assert same.parts == first.parts
    assert same.plan["training.seed"] == 1
    again = run_folder.planned_from(tmp_path / "plan.yaml", PlanRequest(seed=5))
    assert again.parts == first.parts
    assert again.plan["training.seed"] == 5
