"""A job over sites on one machine: the one recipe in rounds, stopped and resumed, and its folder as a run."""

from __future__ import annotations

import json
import shutil
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import pandas as pd
import pytest
from safetensors.numpy import load_file

import hilum
import trained
from hilum.errors import IntegrityError
from hilum.federation import exchanges, federated_job
from hilum.federation.exchanges import SiteMessage
from hilum.federation.site import Site
from hilum.runs.plan_request import PlanRequest

SIX = {"training.steps": 6, "training.batch": 2, "network.size": trained.SMALL_UNET}
GIVEN = {"rounds": 3, "labels": trained.LABELS, "device": "cpu", "threads": 1, "deterministic": True}


@pytest.fixture(scope="module")
def data(tmp_path_factory) -> Path:
    root = tmp_path_factory.mktemp("sites")
    trained.blobs(root / "a", 16)
    trained.blobs(root / "b", 12, first=40)
    return root


@pytest.fixture(scope="module")
def job(data, tmp_path_factory) -> Path:
    """A job of two sites; tests only read it."""
    out = tmp_path_factory.mktemp("job") / "JOB"
    hilum.federate([f"a={data / 'a'}", f"b={data / 'b'}"], out=out, assignments=SIX, **GIVEN)
    return out


def tensors(folder: Path) -> Mapping[str, np.ndarray]:
    return load_file(folder / "checkpoints" / "last" / "weights.safetensors")


def same(first: Mapping[str, np.ndarray], second: Mapping[str, np.ndarray]) -> bool:
    return first.keys() == second.keys() and all(first[key].tobytes() == second[key].tobytes() for key in first)


def test_a_job_of_one_site_is_the_training_of_that_site(data, tmp_path):
    hilum.federate({"a": data / "a"}, out=tmp_path / "JOB", assignments=SIX, everything=True, **GIVEN)
    private, again = (tmp_path / "JOB.sites" / name for name in ("a", "again"))
    shutil.copytree(private, again)
    shutil.rmtree(again / "checkpoints")
    alone = Site("a", None, again, PlanRequest(), 0.0)
    alone.resume(SiteMessage("resume"))
    alone._train_until(6)
    for name in ("weights", "module", "optimiser"):
        ours, theirs = (load_file(one / "checkpoints" / "last" / f"{name}.safetensors") for one in (private, again))
        assert same(ours, theirs), name
    assert same(tensors(tmp_path / "JOB"), tensors(again))


@pytest.mark.whole
def test_two_sites_with_equal_data_are_as_one(data, tmp_path):
    for number, sites in enumerate((["a"], ["a", "b"])):
        own = dict.fromkeys(sites, data / "a")
        hilum.federate(own, out=tmp_path / f"JOB{number}", assignments=SIX, everything=True, **GIVEN)
    assert same(tensors(tmp_path / "JOB0"), tensors(tmp_path / "JOB1"))


def test_a_job_that_is_stopped_anywhere_goes_on_to_the_same_bits(data, job, tmp_path, monkeypatch):
    """Once in the middle of a round at the second site, and once before the round is written."""
    answer, write, calls = Site.answer, federated_job.RoundState.write, []

    def stopping(site, message):
        calls.append((site.name, message.kind))
        if len(calls) in (10, 13):
            raise KeyboardInterrupt
        return answer(site, message)

    monkeypatch.setattr(Site, "answer", stopping)
    with pytest.raises(KeyboardInterrupt):
        hilum.federate({name: data / name for name in "ba"}, out=tmp_path / "JOB", assignments=SIX, **GIVEN)
    assert calls[-1] == ("b", "round")
    with pytest.raises(KeyboardInterrupt):
        hilum.federate(resume=tmp_path / "JOB")

    def lost(state, folder):
        if state.number == 2:
            monkeypatch.setattr(federated_job.RoundState, "write", write)
            raise KeyboardInterrupt
        write(state, folder)

    monkeypatch.setattr(federated_job.RoundState, "write", lost)
    with pytest.raises(KeyboardInterrupt):
        hilum.federate(resume=tmp_path / "JOB")
    hilum.federate(resume=tmp_path / "JOB")
    assert same(tensors(job), tensors(tmp_path / "JOB"))
    rounds = pd.read_csv(tmp_path / "JOB" / "federation" / "rounds.csv")
    assert rounds[["round", "site"]].to_numpy().tolist() == [[n, site] for n in (1, 2, 3) for site in "ab"]
    assert exchanges.verify_exchanges(tmp_path / "JOB" / "federation" / "exchanges.jsonl")


def test_a_job_is_a_run_that_holds_nothing_of_a_case(job, data, tmp_path):
    assert not [path for path in job.rglob("*") if path.name in ("split.csv", "dataset.csv", "data.json", "cases.csv")]
    texts = [
        path.read_text() for path in job.rglob("*") if path.suffix in (".json", ".yaml", ".html", ".csv", ".jsonl")
    ]
    assert not [text for text in texts if "case0" in text or str(data) in text]
    assert json.loads((job / "federation" / "federation.json").read_text())["shared"] == []
    assert hilum.load(job).record["federation"]["parties"]["a"]["train"] == 12
    predicted = hilum.predict(job, [data / "a" / "images" / "case00.nii.gz"], out=tmp_path / "predicted")
    assert len(predicted.outcomes) == 1
    scored = hilum.evaluate(job, data / "a", private=job.with_name("JOB.sites") / "a", labels=trained.LABELS)
    assert scored.which == "the test cases of the run's own data"
    assert "only they know on which cases" not in " ".join(scored.notes)
    elsewhere = hilum.evaluate(job, trained.blobs(tmp_path / "new", 2, first=90), labels=trained.LABELS)
    assert "only they know on which cases" in " ".join(elsewhere.notes)


@pytest.mark.whole
def test_a_package_of_a_job_says_what_was_exchanged(job, tmp_path):
    hilum.package(job, out=tmp_path / "package", backends=())
    assert hilum.load(tmp_path / "package").record["federation"]["rounds"] == 3


def test_the_pooled_dice_is_that_of_all_test_cases(job):
    private = job.with_name("JOB.sites")
    tables = pd.concat([pd.read_csv(private / site / "evaluation" / "cases.csv") for site in "ab"])
    rows = json.loads((job / "evaluation" / "summary.json").read_text())["rows"]
    pooled = {row["label"]: row for row in rows if row["metric"] == "dice"}
    means = tables.groupby("label")["dice"].mean()
    assert pooled["core"]["value"] == pytest.approx(means["core"])
    assert pooled["all"]["value"] == pytest.approx(means.mean())
    assert pooled["all"]["low"] <= pooled["all"]["value"] <= pooled["all"]["high"]
    sites = pd.read_csv(job / "federation" / "sites.csv")
    assert sites["n"].isna().all()  # each has fewer test cases than may be counted
    assert set(sites["site"]) == {"a", "b", "mean of sites", "a new site"}


def test_a_temperature_is_that_of_all_sites_patients_and_in_every_model(tmp_path):
    sites = {name: trained.pictures(tmp_path / name, 20, first=40 * n) for n, name in enumerate("ab")}
    chosen = {"training.steps": 4, "training.batch": 2, "network.size": trained.SMALL_RESNET, "federation.min_count": 2}
    hilum.federate(sites, out=tmp_path / "JOB", assignments=chosen, rounds=2, device="cpu", threads=1)
    folders = [tmp_path / "JOB", *((tmp_path / "JOB.sites" / name) for name in "ab")]
    found = [hilum.load(folder).task.certainty.calibration for folder in folders]
    assert found[0] == found[1] == found[2]
    splits = pd.concat([pd.read_csv(folder / "split.csv") for folder in folders[1:]])
    assert (found[0].method, found[0].cases) == ("temperature", (splits["split"] == "val").sum())
    assert "calibration, prediction sets" not in (tmp_path / "JOB" / "report.html").read_text()


def test_each_site_sends_at_least_two_messages_a_round_and_the_ledger_shows_a_change(job, tmp_path):
    text = (job / "federation" / "exchanges.jsonl").read_text()
    lines = [json.loads(line) for line in text.splitlines()]
    for site in "ab":
        for number in (1, 2, 3):
            assert sum(one["round"] == number and site in (one["from"], one["to"]) for one in lines) >= 2
    (changed := tmp_path / "exchanges.jsonl").write_text(text.replace('"bytes": ', '"bytes": 1', 1))
    with pytest.raises(IntegrityError, match="line 2 does not follow"):
        exchanges.verify_exchanges(changed)


def test_layers_of_its_own_never_leave_a_site_and_each_is_pulled_towards_the_round(tmp_path):
    """With the median, a fresh optimiser each round, and the round that the validation cases of both sites prefer."""
    sites = {name: trained.pictures(tmp_path / name, 14, first=20 * n) for n, name in enumerate("ab")}
    chosen = {
        **{"training.steps": 4, "training.batch": 2, "network.size": trained.SMALL_RESNET},
        **{"federation.min_count": 2, "federation.private_layers": ["*norm*"], "federation.select": "validation"},
        **{"federation.method": "median", "federation.optimiser": "reset"},
        **{"objectives.terms": ["supervised", "l2_sp"], "l2_sp.towards": "round"},
    }
    given = {"device": "cpu", "threads": 1, "deterministic": True}
    hilum.federate(sites, out=tmp_path / "JOB", rounds=2, assignments=chosen, **given)
    state = federated_job.RoundState.read(tmp_path / "JOB" / "federation")
    names = {*state.common.weights, *state.averages}
    assert state.score is not None and len(names) > 5 and not [name for name in names if "norm" in name]
    own, other = (
        load_file(tmp_path / "JOB.sites" / site / "checkpoints" / "best" / "weights.safetensors") for site in "ab"
    )
    common = [name for name in own if own[name].tobytes() == other[name].tobytes()]
    assert set(common) >= {*state.averages} and len(common) < len(own)
    last = tmp_path / "JOB.sites" / "a" / "checkpoints" / "last"
    start, module = (load_file(last / f"{name}.safetensors") for name in ("objectives", "module"))
    assert {name.removeprefix("start.") for name in start} == {*module}
