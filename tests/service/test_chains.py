"""Rules that wait for the answer of another rule, and look within it or not at all."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path

import numpy as np
import pydicom
import pytest
from sqlalchemy import select, update

import hilum
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.service._keeper import Keeper
from hilum.service.configuration import NodeSettings
from hilum.service.model_facts import ModelFacts
from hilum.service.records import tables
from hilum.service.records.job_queue import Job, JobOutcome
from hilum.service.records.record_database import Database
from hilum.service.records.study_index import Arrival, StudyIndex
from hilum.values import Geometry, Image
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model

STUDY, SERIES = "a" * 32, "b" * 32
MODELS = {
    "m": ModelFacts("m", "old", labels={"liver": 1, "spleen": 2}, findings=("bleed",)),
    "n": ModelFacts("n", "other"),
}
FIRST = {"name": "first", "model": "m"}
WITHIN = {"name": "within", "model": "n", "inside": {"rule": "first", "label": "liver"}}


class Chain:
    """The rules of a node on one study, whose jobs are answered by hand."""

    def __init__(self, database: Database, folder: Path) -> None:
        self.database, self.folder, self.index = database, folder, StudyIndex(database)
        uids = ("1.1", "1.2", "1.3", "1.4", "1.5")
        self.index.add([Arrival(STUDY, SERIES, "c" * 32, *uids, "studies/c.dcm", 9, "0" * 64, "pacs", "store")])
        self.index.complete(STUDY, 1, {}, {SERIES: {"modality": "CT", "inputs_hash": "0" * 64}})

    def follow(self, *rules: dict, models: dict[str, ModelFacts] = MODELS, bleed: float = 0.9) -> list[Job]:
        """Have the rules look at the study anew; the jobs that were new, each answered with a result."""
        settings = NodeSettings(
            node={"folder": self.folder}, models={name: {"path": name} for name in models}, rules=list(rules)
        )
        keeper, done = Keeper(settings, self.database, settings.rules, models), list[Job]()
        self.index.reroute(STUDY)
        while waiting := self.index.to_route(1):
            keeper.route(waiting[0])
            while (job := keeper.jobs.claim("worker")) is not None:
                keeper.jobs.finish(job, JobOutcome("answered", findings=[{"concept": "bleed", "probability": bleed}]))
                done.append(job)
        return done

    def superseded(self) -> dict[str, str]:
        """{rule: reason} of jobs that no longer count."""
        with self.database.read() as connection:
            there = select(tables.JOBS.c.rule, tables.JOBS.c.reason).where(tables.JOBS.c.state == "superseded")
            return dict(connection.execute(there).tuples().all())


@pytest.fixture
def chain(database, tmp_path):
    return Chain(database, tmp_path)


def rules_of_jobs(done: Sequence[Job]) -> list[str]:
    return [job.rule for job in done]


def test_a_job_within_another_answer_states_label_and_margin_and_is_done_anew_where_its_rule_has_others(chain):
    first, within = chain.follow(FIRST, WITHIN)
    assert within.inputs["inside"] == {"job": first.job, "label": "liver", "value": 1, "margin_mm": 0.0}
    assert chain.follow(FIRST, WITHIN) == []
    for inside in ({"label": "spleen"}, {"label": "liver", "margin_mm": 30}):
        [again] = chain.follow(FIRST, {**WITHIN, "inside": {"rule": "first", **inside}})
        assert {**again.inputs["inside"], "value": 0} == {"job": first.job, "margin_mm": 0.0, "value": 0, **inside}
        assert chain.superseded() == {"within": "its rule looks within another answer, label or margin now"}
    [everywhere] = chain.follow(FIRST, {"name": "within", "model": "n"})
    assert "inside" not in everywhere.inputs


def test_the_answer_of_a_replaced_model_counts_no_more_once_the_study_is_rerouted(chain):
    only_if = {"name": "third", "model": "n", "only_if": {"rule": "first", "finding": "bleed"}}
    old_first = chain.follow(FIRST, WITHIN, only_if)[0]
    replaced = {**MODELS, "m": replace(MODELS["m"], hash="new", labels={"spleen": 1, "liver": 2})}
    first, within = chain.follow(FIRST, WITHIN, only_if, models=replaced, bleed=0.1)
    assert [(job.rule, job.model_hash) for job in (first, within)] == [("first", "new"), ("within", "other")]
    assert (within.inputs["inside"]["job"], within.inputs["inside"]["value"]) == (first.job, 2)
    waiting = "its rule is gone, waits for an answer, or takes no series of the study now"
    assert chain.superseded() == {
        "first": "its rule has another model now",
        "within": waiting,
        "third": waiting,
    }
    back_again = chain.follow(FIRST, WITHIN, only_if)
    assert back_again[0].job == old_first.job
    assert sorted(rules_of_jobs(back_again)) == ["first", "third", "within"]


def test_no_job_looks_within_an_answer_on_images_that_have_changed(chain):
    chain.follow(FIRST, WITHIN)
    with chain.database.write() as connection:
        connection.execute(update(tables.SERIES_ROWS).values(inputs_hash="1" * 64))
    first, within = chain.follow(FIRST, WITHIN)
    assert within.inputs["inside"]["job"] == first.job


def test_a_job_is_superseded_with_the_reason_that_holds(chain):
    assert rules_of_jobs(chain.follow(FIRST, {"name": "second", "model": "n"})) == ["first", "second"]
    assert chain.follow(FIRST) == []
    assert chain.superseded() == {
        "second": "its rule is gone, waits for an answer, or takes no series of the study now"
    }


def test_a_rule_within_another_answer_marks_nothing_outside_its_box(tmp_path, mr):
    """The ball is bright in the middle; the second threshold holds at the far end of the first axis too."""
    high, low = (threshold_model(tmp_path, level, name=name) for name, level in (("high", LEVEL), ("low", 20.5)))
    chained = [
        {"name": "ball", "model": "high.onnx"},
        {"name": "all", "model": "low.onnx"},
        {"name": "within", "model": "low.onnx", "inside": {"rule": "ball", "label": "bright", "margin_mm": 1}},
    ]
    node = SmallNode(tmp_path / "node", high, low, rules=chained)
    node.receive(*mr)
    node.work()
    found = {}
    for job in node.rows(tables.JOBS):
        answer = hilum.read(node.settings.folder / "results" / job.job / "answer.nii.gz")
        found[job.rule] = np.asarray(answer.data)[0] > 0
    node.store.close()
    node.database.close()
    places = np.argwhere(found["ball"])
    outside = np.ones_like(found["ball"])
    outside[tuple(slice(low - 1, high + 2) for low, high in zip(places.min(0), places.max(0), strict=True))] = False
    assert (found["all"] & outside).any()
    assert not (found["within"] & outside).any()
    np.testing.assert_array_equal(found["within"], found["all"] & ~outside)


@pytest.mark.whole
def test_a_rule_within_the_answer_on_another_series_looks_where_that_lies_in_the_patient(tmp_path, mr):
    """The second series has voxels half as long along its first axis, and begins elsewhere."""
    high, low = (threshold_model(tmp_path, level, name=name) for name, level in (("high", LEVEL), ("low", 20.5)))
    chained = [
        {"name": "ball", "model": "high.onnx", "when": {"SeriesDescription": "series"}},
        {
            "name": "within",
            "model": "low.onnx",
            "when": {"SeriesDescription": "~fine|elsewhere"},
            "inside": {"rule": "ball", "label": "bright"},
        },
    ]
    node = SmallNode(tmp_path / "node", high, low, rules=chained)
    node.receive(*mr)
    [first] = dataset_layouts.read_dataset(mr[0].parent, DatasetOptions(references=False, channels=1))
    [coarse] = first.images.values()
    affine = coarse.geometry.affine @ np.diag([0.5, 1, 1, 1])
    affine[:3, 3] = coarse.geometry.to_world(np.array([3.75, 2, 1]))
    pixels = np.full((1, 40, 18, 7), 90, np.int16)
    pixels[0, 0, 0, 0] = 91  # an image of one value has no answer
    bright = Image(pixels, Geometry((40, 18, 7), affine), modality="MR")
    uids = {"StudyInstanceUID": pydicom.dcmread(mr[0]).StudyInstanceUID}
    for name, frame in (("fine", pydicom.dcmread(mr[0]).FrameOfReferenceUID), ("elsewhere", "1.2.3")):
        for path in _in_study(bright, name, tmp_path / name, {**uids, "FrameOfReferenceUID": frame}):
            node.receive(path)
    node.work()
    by_series = {row.series: row.attributes["SeriesDescription"] for row in node.rows(tables.SERIES_ROWS)}
    found = {by_series[row.inputs["series"]["image"]]: row for row in node.rows(tables.JOBS)}
    assert (found["elsewhere"].outcome, "another frame of reference" in found["elsewhere"].reason) == ("refused", True)
    ball, fine = (
        hilum.read(node.settings.folder / "results" / found[name].job / "answer.nii.gz") for name in ("series", "fine")
    )
    node.store.close()
    node.database.close()
    places = np.argwhere(np.asarray(ball.data)[0] > 0)
    ends = [ball.geometry.to_world(end) for end in (places.min(0) - 0.5, places.max(0) + 0.5)]
    low_corner, high_corner = sorted(fine.geometry.to_index(np.array(ends)).tolist())
    marked = np.argwhere(np.asarray(fine.data)[0] > 0)
    np.testing.assert_allclose(marked.min(0) - 0.5, low_corner, atol=1e-3)
    np.testing.assert_allclose(marked.max(0) + 0.5, high_corner, atol=1e-3)


def _in_study(image: Image, name: str, folder: Path, uids: dict[str, str]) -> list[Path]:
    """A series that belongs to a study that is there."""
    series_writing.write_series(image, SeriesNames("p", "study", name), folder)
    for path in folder.iterdir():
        dataset = pydicom.dcmread(path)
        for keyword, uid in uids.items():
            setattr(dataset, keyword, uid)
        dataset.save_as(path)
    return sorted(folder.iterdir())
