"""One study through keeper and worker: answers on the source's own voxels, the same whenever they are made again."""

from __future__ import annotations

import json
import threading

import highdicom
import numpy as np
import pandas as pd
import pydicom
import pytest
from sqlalchemy import update

import hilum
from hilum.errors import FormatError, ResourceError
from hilum.files.dicom import header_reading
from hilum.files.dicom.reading import series_survey, sr_reading
from hilum.files.dicom.writing import series_writing, stamp
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.files.dicom.writing.stamp import Stamp
from hilum.prediction.case_prediction import PredictionOutcome
from hilum.prediction.findings_file import ExaminedImage
from hilum.quality import image_quality
from hilum.service import _keeper
from hilum.service.exchange import findings_report
from hilum.service.monitoring import safety
from hilum.service.reading import judged_results
from hilum.service.records import tables
from hilum.service.records.actor import ANYONE
from hilum.service.records.job_queue import Job, Jobs
from hilum.service.records.study_index import StudyIndex
from hilum.service.web import node_routes, study_routes
from hilum.service.web.study_routes import StudyPage
from hilum.service.web.web_node import WebNode
from hilum.service.work import job_answers
from hilum.values import Geometry, Image
from hilum.values.finding import FindingsRecord
from matrices import thinned
from service.objects_sent import encoded, simulated
from service.small_node import LEVEL, SmallNode
from service.thresholds import class_model, threshold_model
from written_dicom import write_slice


@pytest.fixture
def node(small_node):
    return small_node


def test_a_study_in_which_nothing_is_seen_says_so_and_has_its_answer_none_the_less(tmp_path, mr):
    node = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", 1e5))
    node.receive(*mr)
    node.work()
    [row], [study] = node.rows(tables.JOBS), node.rows(tables.STUDIES)
    node.store.close()
    node.database.close()
    assert (row.state, row.outcome, study.outcome) == ("done", "answered", "answered")
    assert row.reason.startswith("the model has found nothing")
    assert {"load", "read", "predict", "write"} <= row.seconds.keys()
    assert row.versions.keys() == {"hilum", "model"}
    assert np.asarray(hilum.read(node.settings.folder / "results" / row.job / "answer.nii.gz").data).sum() == 0


@pytest.mark.whole
def test_the_log_states_the_outcome_of_a_study_before_its_reason(node, tmp_path, caplog):
    caplog.set_level("INFO", "hilum")
    plain = [
        write_slice(tmp_path / f"{z}.dcm", np.full((8, 8), 90, np.uint16), position=(0, 0, z), Modality="MR")
        for z in range(2)
    ]
    node.receive(*plain)
    node.work()
    [stated] = [one.getMessage() for one in caplog.records if one.getMessage().startswith("study ")]
    assert " is done: abstained; it is one value everywhere" in stated
    assert "secret-4711" not in caplog.text and "Doe" not in caplog.text


def test_a_model_with_a_gate_abstains_from_a_picture_that_is_unlike_all_that_trained_it(tmp_path, gated):
    node = SmallNode(tmp_path / "node", gated.out)
    odd = simulated("1.2.3.4", side=24, PixelData=np.full((24, 24), 4000, np.uint16).tobytes())
    (tmp_path / "odd.dcm").write_bytes(encoded(odd))
    node.receive(tmp_path / "odd.dcm")
    node.work()
    [row], [study] = node.rows(tables.JOBS), node.rows(tables.STUDIES)
    node.store.close()
    node.database.close()
    assert (row.state, row.outcome, study.outcome) == ("done", "abstained", "abstained")
    assert row.reason and 0 <= row.gate_p < 0.05


def test_series_of_two_patients_under_one_study_are_never_one_input(tmp_path):
    """Two exports of one scanner or of one anonymiser may share a StudyInstanceUID."""
    image = Image(np.arange(64, dtype=np.int16).reshape(1, 4, 4, 4), Geometry((4, 4, 4), np.eye(4)), modality="MR")
    files = {}
    for place, (series, patient) in enumerate((("t1", "one"), ("flair", "one"), ("other", "another"))):
        series_writing.write_series(image, SeriesNames(patient, "study", series, place + 1), tmp_path / series)
        files[series] = sorted((tmp_path / series).iterdir())
        for path in files[series]:
            slice_ = pydicom.dcmread(path)
            slice_.StudyInstanceUID = "1.2.3"
            slice_.save_as(path)
    job = Job("j", "s", "r", "m", "h", {}, 1, 1, 0.0)
    with job_answers._cases(job, job_answers.JobInputs({"T1": files["t1"], "FLAIR": files["flair"]}), None) as [case]:
        assert list(case.images) == ["T1", "FLAIR"]
    mixed = job_answers.JobInputs({"T1": files["t1"], "FLAIR": files["other"]})
    with pytest.raises(FormatError, match="of 2 patients"), job_answers._cases(job, mixed, None):
        pass


def test_tracks_of_a_clip_are_a_table_beside_its_other_results(tmp_path):
    job = Job("j", "s", "r", "m", "h", {"series": {}}, 1, 1, 0.0)
    tracks = [{"case": "answer", "track": 1, "label": "cell", "first_frame": 0, "last_frame": 4, "score": 0.75}]
    for name, rows in (("clip", tracks), ("still", [])):
        (tmp_path / name).mkdir()
        seen = [ExaminedImage(PredictionOutcome([{"case": "answer"}], [], None, tracks=rows))]
        made = job_answers._answers(
            job, seen, FindingsRecord((), "answered"), tmp_path / name, job_answers.ObjectMarks("2.25", "")
        )
        assert ("tracks.csv" in {one.name for one in made}) is bool(rows)
    assert pd.read_csv(tmp_path / "clip" / "tracks.csv").to_dict("records") == tracks


def test_the_same_job_made_again_gives_the_same_bytes(node, mr):
    node.receive(*mr)
    node.work()
    [job] = node.rows(tables.JOBS)
    folder = node.result().parent
    (folder.parent / f".{job.job}.0").mkdir()  # as a worker leaves it that is killed
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert {"answer.dcm", "answer_report.dcm", "answer.nii.gz", "findings.json", "predictions.csv"} <= set(first)
    segment = sr_reading.read_report(folder / "answer_report.dcm").stated[0].segment
    assert segment == (pydicom.dcmread(folder / "answer.dcm").SOPInstanceUID, 1)
    assert node.worker.jobs.retry(job.job)
    node.work()
    assert list(folder.parent.iterdir()) == [folder]
    assert {path.name: path.read_bytes() for path in folder.iterdir()} == first
    [row] = node.rows(tables.JOBS)
    assert (row.state, row.outcome, row.attempts) == ("done", "answered", 1)
    seg = [row for row in node.rows(tables.ANSWERS) if row.kind == "seg"]
    assert seg[0].sop_instance_uid.startswith("2.25.")
    said = json.loads(first["findings.json"])
    assert (said["schema"], said["version"]) == ("hilum.findings", 1)
    assert [one.row for one in node.rows(tables.FINDING_ROWS)] == said["rows"]


def test_a_late_image_makes_a_further_revision_whose_answer_replaces_the_first(node, mr):
    node.receive(*mr[:-1])
    node.work()
    node.receive(mr[-1])
    node.work()
    states = sorted((row.revision, row.state, row.outcome) for row in node.rows(tables.JOBS))
    assert states == [(1, "superseded", "answered"), (2, "done", "answered")]
    assert [row.revision for row in node.rows(tables.STUDIES)] == [2]


def test_a_result_of_a_series_that_has_grown_meanwhile_is_not_given_out(node, mr, monkeypatch):
    answer_job = job_answers.answer_job

    def slow(*given, **limits):
        outcome = answer_job(*given, **limits)
        node.receive(mr[-1])
        node.keeper.absorb()
        return outcome

    monkeypatch.setattr(job_answers, "answer_job", slow)
    node.receive(*mr[:-1])
    node.work()
    states = sorted((row.revision, row.state, row.outcome) for row in node.rows(tables.JOBS))
    assert states == [(1, "superseded", None), (2, "done", "answered")]
    assert {row.job for row in node.rows(tables.ANSWERS)} == {
        row.job for row in node.rows(tables.JOBS) if row.revision == 2
    }


def test_a_mask_that_no_segmentation_can_hold_is_sent_as_a_report_alone_and_the_job_says_why(tmp_path, mr):
    for path in mr:  # a SEG needs a frame of reference
        header = pydicom.dcmread(path)
        del header.FrameOfReferenceUID
        header.save_as(path)
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 11112}
    rules = [{"name": "r", "model": "threshold.onnx", "send": ["pacs"]}]
    node = SmallNode(tmp_path / "node", threshold_model(tmp_path / "model", LEVEL), peers=[pacs], rules=rules)
    node.receive(*mr)
    node.work()
    [row], [sent] = node.rows(tables.JOBS), node.rows(tables.DELIVERIES)
    node.store.close()
    node.database.close()
    assert (row.state, row.outcome, sent.name) == ("sending", "answered", "answer_report.dcm")
    assert "the image states no FrameOfReferenceUID" in row.reason


@pytest.mark.parametrize(
    ("tell", "level", "plain", "expected"),
    thinned(
        2,
        [
            (None, 1e5, False, ("answered", ["answer_report.dcm"], "Not detected")),
            (["found"], 1e5, False, ("answered", [], "Not detected")),
            (["abstained"], LEVEL, True, ("abstained", ["answer_report.dcm"], "Undetermined")),
            (None, LEVEL, True, ("abstained", [], None)),
        ],
    ),
)
def test_peers_are_told_of_outcomes_without_a_result_as_the_rule_says(tmp_path, mr, tell, level, plain, expected):
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 11112}
    rule = {"name": "r", "model": "threshold.onnx", "send": ["pacs"], **({} if tell is None else {"tell": tell})}
    model = threshold_model(tmp_path / "model", level)
    node = SmallNode(tmp_path / "node", model, peers=[pacs], rules=[rule], hl7={"send": ["ris:2575"]})
    for path in mr if plain else ():
        header = pydicom.dcmread(path)
        header.PixelData = np.full((header.Rows, header.Columns), 90, np.uint16).tobytes()
        header.save_as(path)
    node.receive(*mr)
    node.work()
    [row], sent, path = node.rows(tables.JOBS), node.rows(tables.DELIVERIES), node.result("answer_report.dcm")
    reported = [one.job for one in sent if (one.name, one.peer) == ("findings.json", "ris:2575")]
    made = [findings_report.report_of_job(node.settings, node.database, job) for job in reported]
    judged = judged_results.find_judged(node.database, node.settings.folder, row.job)
    [(name, facts)] = node.models.items()
    node.store.close()
    node.database.close()
    assert (row.outcome, [one.name for one in sent if one.peer == "pacs"]) == expected[:2]
    assert [(one.record["outcome"], one.record["reason"]) for one in made] == [(row.outcome, row.reason)] * len(
        expected[1]
    )
    # A model has one name and one version, whatever it came to.
    assert judged.model == (name, facts.version) == ("threshold.onnx", row.model_version) and facts.version
    assert all((one.record["model"]["name"], one.record["model"]["version"]) == judged.model for one in made)
    assert row.gate.startswith("no gate")
    assert path.exists() == (expected[2] is not None)
    if path.exists():
        assert f"{name} {facts.version}".encode() in path.read_bytes()
        group = highdicom.sr.srread(path).content.get_image_measurement_groups()[0]
        assert group.finding_type.meaning == expected[2]


def test_classes_are_sent_to_a_peer_as_a_report(tmp_path, mr):
    pacs = {"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": 11112}
    rules = [{"name": "r", "model": "classes.onnx", "send": ["pacs"]}]
    node = SmallNode(tmp_path / "node", class_model(tmp_path / "model"), peers=[pacs], rules=rules)
    node.receive(*mr)
    node.work()
    [row], [sent] = node.rows(tables.JOBS), node.rows(tables.DELIVERIES)
    path = node.result("answer_report.dcm")
    node.store.close()
    node.database.close()
    assert (row.outcome, row.reason or "", sent.name, sent.peer) == ("answered", "", "answer_report.dcm", "pacs")
    [group] = highdicom.sr.srread(path).content.get_image_measurement_groups()
    assert [one.value.meaning for one in group.get_qualitative_evaluations()] == ["odd"]
    stated = {one.name.meaning: float(one.value) for one in group.get_measurements()}
    assert stated == pytest.approx({"Probability of calm": 26.8941421, "Probability of odd": 73.1058579})
    [study, made] = [pydicom.dcmread(one).StudyInstanceUID for one in (mr[0], path)]
    assert study == made


def test_a_study_that_no_rule_takes_has_an_outcome_and_a_reason_wherever_a_user_looks(tmp_path, mr):
    model = threshold_model(tmp_path, LEVEL, name="m")
    rules = [{"name": "heads", "model": "m.onnx", "when": {"PatientName": "~Doe", "slices": (100, 200)}}]
    node = SmallNode(tmp_path / "node", model, rules=rules)
    node.receive(*mr)
    node.work()
    web = WebNode(node.settings, node.database, node.store)
    [row] = study_routes.list_studies(web, ANYONE, StudyPage()).rows
    assert (row.state, row.outcome, row.jobs) == ("done", "refused", [])
    assert (
        row.reason == "no rule takes a series of it; what fails: heads (PatientName). See `hilum route`, or its /route"
    )
    assert study_routes.get_study(web, ANYONE, row.study) == row
    assert b'hilum_study_outcomes{outcome="refused"} 1.0' in node_routes.get_metrics(web).body
    last = node.rows(tables.AUDIT)[-1]
    assert last.action == "study done" and last.patient == series_survey.pseudonym_from_header(
        header_reading.read_header(mr[0]).dataset
    )
    assert last.detail == {"study": last.object, "outcome": "refused", "reason": row.reason}
    node.store.close()
    node.database.close()


def test_a_study_with_two_objects_of_one_uid_is_aside_until_a_person_has_chosen_one(node, mr):
    other = pydicom.dcmread(mr[0])
    other.PatientComments = "another"
    other.save_as(mr[0].with_name("other.dcm"))
    node.receive(*mr, mr[0].with_name("other.dcm"))
    node.work()
    web = WebNode(node.settings, node.database, node.store)
    [row] = study_routes.list_studies(web, ANYONE, StudyPage()).rows
    assert (row.state, row.outcome) == ("aside", "answered")
    assert "aside/1" in row.reason
    [lying] = study_routes.list_aside(web).rows
    assert (lying.study, lying.sop_instance_uid) == (row.study, other.SOPInstanceUID)
    for revision in (2, 3):  # and back: the first answer is wanted again
        study_routes.release_aside(web, ANYONE, 1)
        node.keeper._read = {}  # a keeper that starts anew reads its journals from the beginning
        node.work()
        [row] = study_routes.list_studies(web, ANYONE, StudyPage()).rows
        assert (row.state, row.outcome, row.reason, row.revision) == ("done", "answered", None, revision)
    assert sorted(one.state for one in row.jobs) == ["done", "superseded"]


def test_a_study_sent_ten_times_has_one_answer(node, mr):
    for _ in range(10):
        node.receive(*mr)
        node.work()
    assert len(node.rows(tables.JOBS)) == 1
    assert [row.revision for row in node.rows(tables.STUDIES)] == [1]


def test_files_that_no_row_knows_are_found_at_the_start(node, mr):
    node.receive(*mr)
    for journal in (node.settings.folder / "inbox").rglob("journal-*"):
        journal.write_bytes(b"")  # as if it had not survived
    assert node.keeper.absorb() == 0
    assert node.keeper.find() == len(mr)
    node.work()
    assert [row.outcome for row in node.rows(tables.JOBS)] == ["answered"]


@pytest.mark.whole
def test_a_flood_of_studies_is_kept_in_portions_and_none_is_complete_too_early(node, tmp_path, monkeypatch):
    """One round ends soon whatever has come in: the first answers do not wait for the last study."""
    monkeypatch.setattr(_keeper, "JOURNAL_BYTES", 1)
    monkeypatch.setattr(_keeper, "STUDIES", 1)
    image = Image(np.ones((1, 4, 4, 2), np.int16), Geometry((4, 4, 2), np.diag([-1.0, -1, 1, 1])), modality="MR")
    for number in range(3):
        folder = tmp_path / f"study-{number}"
        series_writing.write_series(image, SeriesNames(f"p{number}", f"study {number}", "series"), folder)
        node.receive(*sorted(folder.iterdir()))
    counts, objects = [], []
    for _ in range(12):
        node.keeper.round()
        counts.append(len(node.rows(tables.JOBS)))
        objects.append(sum(row.instances for row in node.rows(tables.STUDIES)))
    assert objects[:6] == [1, 2, 3, 4, 5, 6]
    assert counts[:7] == [0] * 6 + [1] and counts[-1] == 3
    assert all(row.revision == 1 for row in node.rows(tables.STUDIES))


def test_a_model_that_was_changed_answers_no_old_job(node, mr, tmp_path):
    node.receive(*mr)
    node.keeper.round()
    threshold_model(tmp_path / "model", LEVEL + 1)
    node.work()
    [row] = node.rows(tables.JOBS)
    assert (row.state, row.outcome) == ("done", "refused")
    assert "another model" in row.reason


def test_a_job_that_takes_too_long_ends_its_process_whether_the_database_answers_or_not(node, mr, monkeypatch):
    for is_away in (True, False):
        _take_too_long(node, mr, monkeypatch, is_away=is_away)
    [row] = node.rows(tables.JOBS)
    assert (row.state, row.reason) == ("waiting", "took longer than 0.1 s")


def _take_too_long(node, mr, monkeypatch, *, is_away):
    def away(*given, **named):
        raise ResourceError("the database does not answer", "here", "Wait")

    monkeypatch.setattr("hilum.service.work.worker.os._exit", lambda code: ended.set())
    ended = threading.Event()
    node.receive(*mr)
    node.keeper.round()
    with node.database.write() as connection:
        connection.execute(update(tables.JOBS).values(state="waiting"))
    job = node.worker.jobs.claim("test/worker-0")
    slow = node.settings.model_copy(update={"queue": node.settings.queue.model_copy(update={"job_timeout_s": 0.1})})
    node.worker.settings = slow
    with monkeypatch.context() as patch:
        if is_away:
            patch.setattr(Jobs, "give_back", away)
        with node.worker._renewing_claim(job, threading.Event()):
            assert ended.wait(60)


def test_an_answer_stands_whatever_fails_of_what_is_done_beside_it(node, mr, monkeypatch, caplog):
    def faulty(*_: object) -> None:
        raise KeyError("secret-4711")

    monkeypatch.setattr(image_quality, "quick_measures", faulty)
    monkeypatch.setattr(safety, "with_urgency", faulty)
    monkeypatch.setattr(node.worker.models, "maps_of", lambda *_: faulty)
    node.receive(*mr)
    node.work()
    [row] = node.rows(tables.JOBS)
    assert (row.state, row.outcome) == ("done", "answered")
    for what in ("the measures of the image", "the priority or notice", "the map of what the answer rests on"):
        assert f"{what} failed: KeyError within the node" in row.reason
    assert node.result().is_file()
    assert "KeyError in hilum.service.work" in caplog.text and "secret-4711" not in caplog.text


def test_a_job_whose_claim_is_lost_writes_nothing(node, mr):
    node.receive(*mr)
    node.keeper.round()
    job = node.worker.jobs.claim("test/worker-0")
    with node.database.write() as connection:
        connection.execute(update(tables.JOBS).values(fence=tables.JOBS.c.fence + 1))
    node.worker.finish_job(job)
    assert not (node.settings.folder / "results" / job.job).exists()
    assert node.rows(tables.ANSWERS) == []
    assert list((node.settings.folder / "results").iterdir()) == []


def test_a_stamp_leaves_references_to_other_objects_alone(node, mr, tmp_path):
    node.receive(*mr)
    node.work()
    path = node.result()
    before = stamp.apply_stamp(path, Stamp("2.25", "a", 1e9, "For research use only"))
    after = stamp.apply_stamp(path, Stamp("2.25", "b", 1e9, "For research use only"))
    assert before.SOPInstanceUID != after.SOPInstanceUID
    assert before.StudyInstanceUID == after.StudyInstanceUID
    assert before.ReferencedSeriesSequence == after.ReferencedSeriesSequence
    assert after.SeriesDescription.endswith("For research use only")
    assert StudyIndex(node.database).series_of(node.rows(tables.JOBS)[0].study)[0].modality == "MR"


def test_a_node_writes_what_the_command_writes(node, mr, tmp_path):
    node.receive(*mr)
    node.work()
    hilum.predict(tmp_path / "model" / "threshold.onnx", mr[0].parent, out=tmp_path / "out")
    folders = (tmp_path / "out", node.result().parent)
    their, our = (hilum.read(next(folder.rglob("*.nii.gz"))) for folder in folders)
    np.testing.assert_array_equal(their.data, our.data)
    assert their.geometry.equals(our.geometry, 1e-4)
    theirs, ours = (pydicom.dcmread(next(folder.rglob("*.dcm"))) for folder in folders)
    for dataset in (theirs, ours):  # a node calls a model by its name there
        [segment] = dataset.SegmentSequence
        for holder, keyword in (
            (segment, "SegmentAlgorithmName"),
            (segment.SegmentationAlgorithmIdentificationSequence[0], "AlgorithmName"),
        ):
            assert holder[keyword].value.endswith(node.rows(tables.JOBS)[0].model_version)
            holder[keyword].value = ""
    for keyword in ("SegmentSequence", "SharedFunctionalGroupsSequence", "PerFrameFunctionalGroupsSequence"):
        assert theirs[keyword] == ours[keyword]
    assert theirs.PixelData == ours.PixelData
