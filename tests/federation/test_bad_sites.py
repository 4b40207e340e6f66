"""Sites that are wrong, late or gone, and calls that are."""

from __future__ import annotations

import json
import time
from types import SimpleNamespace

import numpy as np
import pandas as pd
import PIL.Image
import pytest

import hilum
import trained
from hilum.errors import DatasetError, IntegrityError, ResourceError, UsageError
from hilum.evaluation import Metrics
from hilum.federation import exchanges, federated_job, pooled_figures
from hilum.federation.aggregation import CommonState
from hilum.federation.exchanges import LocalCarrier, SiteMessage
from hilum.federation.federated_job import FederatedJob, RoundState
from hilum.federation.federated_run import JobRecord
from hilum.federation.pooled_figures import SiteScores
from hilum.federation.site import Site
from hilum.planning.plan_sections import FederationSettings, PrivacySettings
from hilum.reading import ReadingOptions
from hilum.runs import plan_request, run_folder
from hilum.runs.plan_request import PlanRequest
from hilum.training.length.schedule import TrainingPace
from hilum.values import Estimate, Row
from hilum.verbs import federate

COMMON = CommonState({"w": np.zeros(4, np.float32)})


@pytest.mark.parametrize(
    ("sites", "words"),
    [
        ([], "there is no site"),
        (["a=x", "a=y"], "two sites are called a"),
        (["a/b=x"], "cannot be the name of a site"),
        (["../a=x"], "cannot be the name of a site"),
        (["a"], "names no data"),
        (["a="], "names no data"),
    ],
)
def test_sites_that_cannot_be_are_refused(sites, words):
    with pytest.raises(UsageError, match=words):
        federate.named_sites(sites)


def test_calls_that_cannot_be_are_refused(tmp_path):
    for given, words in (
        ({}, "either the data of sites or a job to resume"),
        ({"sites": ["a=x"]}, "a folder to be written into"),
        ({"sites": ["a=x", "b=y"], "out": tmp_path / "JOB", "min_sites": 3}, "3 of 2 sites"),
        ({"resume": tmp_path}, "holds no job of sites"),
    ):
        with pytest.raises(UsageError, match=words):
            hilum.federate(**given)


def test_the_command_line_takes_sites_by_name(cli, tmp_path):
    done = cli("federate", "a=x", "b=y", "--min-sites", "3", "--out", tmp_path / "JOB")
    assert (done.code, "3 of 2 sites" in done.err) == (2, True)


class Told:
    """A site that answers what it is told to."""

    def __init__(self, answer):
        self.own = answer

    def answer(self, message):
        if isinstance(self.own, Exception):
            raise self.own
        return SiteMessage("round", {"weight": 12, "steps": 2, "loss": 0.5}, self.own)


def job(tmp_path, monkeypatch, sites, min_sites=None, **chosen):
    """A job of such sites in its first round, without a plan on disk."""
    record = JobRecord("local", 3, 1.0, False, min_sites)
    made = FederatedJob(tmp_path, LocalCarrier({name: Told(one).answer for name, one in sites.items()}), record, 0.0)
    parts = {"federation": FederationSettings(**chosen), "privacy": PrivacySettings()}
    settings = type("Settings", (), parts)
    monkeypatch.setattr(FederatedJob, "settings", settings)
    made.records.open(made.folder)
    return made


def update(value):
    return {"w": np.full(4, value, np.float32)}


WRONG = {
    "numbers that are not finite": update(np.nan),
    "other weights than the common ones": {"v": np.zeros(4, np.float32)},
    "1000 times as long as the middle one": update(1000.0),
    "the disk is full": ResourceError("the disk is full", "site b", "Free some space"),
}


@pytest.mark.parametrize("words", WRONG)
def test_a_wrong_site_ends_the_job_with_its_name_or_is_left_out_where_others_are_enough(words, tmp_path, monkeypatch):
    sites = {"a": update(1.0), "b": WRONG[words], "c": update(1.0)}
    state = RoundState(0, 0, TrainingPace(6), COMMON)
    with pytest.raises((IntegrityError, ResourceError), match=f"site b: .*{words}.*--resume"):
        job(tmp_path, monkeypatch, sites)._round(1, state)
    after = job(tmp_path, monkeypatch, sites, min_sites=2)._round(1, state)
    assert (after.common.weights["w"] == 1.0).all()
    rows = (tmp_path / "federation" / "rounds.csv").read_text()
    assert f"left out: {'its update has ' if 'its' in words else ''}" in rows
    assert words in rows


def test_a_round_is_written_whole_and_read_as_it_was(tmp_path):
    assert RoundState.read(tmp_path) is None
    state = RoundState(
        2, 4, TrainingPace(9, 4, 0.5), CommonState(update(3.0), {"first/w": np.ones(4)}), update(2.0), 0.7
    )
    state.write(tmp_path)
    back = RoundState.read(tmp_path)
    assert (back.number, back.began, back.pace, back.score) == (2, 4, TrainingPace(9, 4, 0.5), 0.7)
    assert (back.common.weights["w"] == 3.0).all() and back.common.moments["first/w"].dtype == np.float64


def test_rounds_end_evenly_and_the_last_at_the_last_step():
    pace = TrainingPace(10)
    assert [federated_job.round_end(pace, number, 4) for number in (1, 2, 3, 4)] == [3, 5, 8, 10]
    assert federated_job.round_end(TrainingPace(10).replan(3, 14), 4, 4) == 17


def test_bytes_that_are_no_message_are_refused():
    whole = SiteMessage("round", {"loss": float("nan")}, update(1.0)).encoded
    assert exchanges.decode_message(whole, "a").facts == {"loss": None}
    for wrong in (b"", b"GET / HTTP/1.1", whole[:40], b"\x80\x04\x95cbuiltins\neval\n"):
        with pytest.raises(IntegrityError, match="no message of a federation"):
            exchanges.decode_message(wrong, "a")


def test_figures_that_are_no_number_stay_json_and_are_of_no_sum():
    rows = [Row("dice", "core", Estimate(float("nan"), method="none: no defined score"))]
    pooled, figures = pooled_figures.pool_scores({"a": SiteScores(rows), "b": SiteScores(rows)}, Metrics())
    json.dumps(
        exchanges.decode_message(SiteMessage("finish", {"rows": [{"value": float("nan")}]}).encoded, "a").facts,
        allow_nan=False,
    )
    assert np.isnan(pooled[0].estimate.value)
    assert pooled_figures.sites_table(figures, 10)["value"].isna().all()


def test_a_job_goes_on_only_with_the_data_that_it_began_with(tmp_path):
    data = trained.pictures(tmp_path / "a", 12)
    chosen = {"training.steps": 4, "training.batch": 2, "network.size": trained.SMALL_RESNET, "federation.min_count": 2}
    given = {"assignments": chosen, "rounds": 2, "device": "cpu", "threads": 1, "everything": True}
    with pytest.raises(UsageError, match=r"no weight has a name like 'nothing\*'"):
        hilum.federate(
            {"a": data},
            out=tmp_path / "JOB",
            **{**given, "assignments": {**chosen, "federation.private_layers": ["nothing*"]}},
        )
    trained.pictures(data, 2, first=20)
    with pytest.raises(IntegrityError, match=r"site a: .*the data have changed"):
        hilum.federate(resume=tmp_path / "JOB")


def test_a_site_of_three_cases_trains_and_sends_no_stand_in(tmp_path):
    data = trained.pictures(tmp_path / "tiny", 3)
    tiny = Site("tiny", data, tmp_path / "own", PlanRequest(device="cpu", threads=1), 0.0)
    assert tiny.answer(SiteMessage("introduce")).facts["found"] == {"class": ("bright", "dark")}
    asked = SiteMessage("stand-ins", {"min_count": 10, "kinds": ["class"]})
    assert tiny.answer(asked).facts == {"stand_ins": []}
    assert list(tiny._parts.values()).count("train") >= 1


def test_a_site_that_knows_one_of_two_structures_says_so_where_alone_it_is_refused(tmp_path):
    rows = ["case,known"]
    for kind in ("images", "labels"):
        (tmp_path / kind).mkdir()
    for number in range(3):
        mask = np.zeros((12, 12), np.uint8)
        mask[2:6, 2:6] = 1
        PIL.Image.fromarray(200 * mask + number).save(tmp_path / "images" / f"p{number}.png")
        PIL.Image.fromarray(mask).save(tmp_path / "labels" / f"p{number}.png")
        rows.append(f"p{number},shell")
    (tmp_path / "known.csv").write_text("\n".join(rows))
    request = PlanRequest(device="cpu", threads=1, reading=ReadingOptions(labels="1=shell,2=core"))
    with pytest.raises(DatasetError, match="no case knows core"):
        plan_request.examine_data(tmp_path, request)
    site = Site("a", tmp_path, tmp_path / "own", request, 0.0)
    assert site.answer(SiteMessage("introduce")).facts["unknown"] == ("core",)


@pytest.mark.parametrize(("scores", "steps"), [(True, 1000), (False, 1187)])
def test_minutes_are_kept_back_for_scoring_only_where_a_site_scores(scores, steps, tmp_path):
    pace = SiteMessage("pace", {"steps": 1000, "compute": "eager", "scores": scores})
    record = JobRecord("local", minutes=10, by_clock=True, rounds=1)
    made = FederatedJob(tmp_path, LocalCarrier({"a": lambda message: pace}), record, time.monotonic())
    made.folder.mkdir()
    made.records.open(made.folder)
    assert made._decide_steps()["training.steps"].value == pytest.approx(steps, abs=3)


@pytest.mark.parametrize(("number", "seconds", "ahead"), [(1, 1.0, 240), (2, 1.0, 40), (2, 60.0, 8), (2, 6.0, 40)])
def test_steps_follow_the_pace_of_all_rounds_and_later_ones_only_become_fewer(
    number, seconds, ahead, tmp_path, monkeypatch
):
    record = JobRecord("local", minutes=5, by_clock=True, rounds=10)
    made = FederatedJob(tmp_path, LocalCarrier({}), record, time.monotonic())
    made.folder.mkdir()
    rows = pd.DataFrame({"round": np.arange(number) + 1, "seconds": seconds})
    rows.to_csv(made.folder / "rounds.csv", index=False)
    written = []
    plan = SimpleNamespace(with_decision=lambda name, decision: (name, decision.value))
    monkeypatch.setattr(federated_job.plan_file, "read_plan", lambda path: plan)
    monkeypatch.setattr(federated_job.federated_run, "write_plan", lambda out, one: written.append(one))
    state = made._replan(RoundState(number, number, TrainingPace(40 + number), COMMON))
    assert state.pace.steps - state.began == pytest.approx(ahead, abs=1)
    assert bool(written) == (ahead != 40)


def test_sites_that_do_not_agree_leave_no_folder(tmp_path):
    pictures = trained.pictures(tmp_path / "pictures", 4)
    with pytest.raises(DatasetError, match="a: has none of the classes"):
        others = trained.pictures(tmp_path / "others", 4, classes=("cat", "dog"))
        hilum.federate({"a": pictures, "b": others}, out=tmp_path / "JOB", device="cpu", threads=1)
    assert sorted(path.name for path in tmp_path.iterdir()) == ["others", "pictures"]


def test_a_site_answers_nothing_that_it_does_not_know_and_no_round_before_it_has_a_plan(tmp_path):
    site = Site("a", None, tmp_path, PlanRequest(), 0.0)
    with pytest.raises(IntegrityError, match="asked for 'send images'"):
        site.answer(SiteMessage("send images"))
    with pytest.raises(IntegrityError, match="before it has a plan"):
        site.answer(SiteMessage("start", {"decisions": {}}))


def test_a_site_that_is_gone_for_a_round_is_left_out_and_comes_back(tmp_path, monkeypatch):
    sites = {name: trained.pictures(tmp_path / name, 8, first=20 * n) for n, name in enumerate("ab")}
    answer = Site.answer

    def gone(site, message):
        if (site.name, message.facts.get("round")) == ("b", 2):
            raise ResourceError("cannot be reached", "site b", "Look at its line")
        return answer(site, message)

    monkeypatch.setattr(Site, "answer", gone)
    chosen = {"training.steps": 3, "training.batch": 2, "network.size": trained.SMALL_RESNET, "federation.min_count": 2}
    given = {"assignments": chosen, "rounds": 3, "device": "cpu", "threads": 1, "everything": True, "min_sites": 1}
    hilum.federate(sites, out=tmp_path / "JOB", **given)
    rows = pd.read_csv(tmp_path / "JOB" / "federation" / "rounds.csv")
    assert rows["state"].tolist() == ["added"] * 3 + ["left out: cannot be reached"] + ["added"] * 2
    assert run_folder.checkpoint_state(tmp_path / "JOB.sites" / "b")["step"] == 3
