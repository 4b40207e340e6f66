"""A model of pairs on the node: which series is the fixed and the moving one, and what of the answer is sent."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import numpy as np
import pydicom
import pynetdicom
import pytest
from pydicom.uid import MRImageStorage
from tests.trained import OBLIQUE, blob, registering, shifted_balls

import hilum
from hilum.errors import UsageError
from hilum.files.dicom.uids import DEFORMABLE_REGISTRATION
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service._courier import Couriers
from hilum.service.configuration import NodeSettings, RoutingRule
from hilum.service.model_facts import ModelFacts
from hilum.service.records import tables
from hilum.service.routing import routing_rules
from hilum.service.routing.routing_facts import SeriesFacts
from hilum.service.work import job_answers
from hilum.service.work.job_answers import PAIR, JobInputs
from hilum.transforms import spatial_transforms
from hilum.values import Geometry, Image
from hilum.values.spatial_transform import ONTO, UNMOVED
from ports import free_port
from service.small_node import SmallNode

MODELS = {"pairs": ModelFacts("pairs", "hash", channels=("fixed", "moving"), task="registration")}
ROLES = {"fixed": {"Modality": "CT"}, "moving": {"Modality": "MR"}}
BY_NAME = {role: {"SeriesDescription": role} for role in ROLES}


def rule(**changes: Any) -> RoutingRule:
    return RoutingRule(**{"name": "r", "model": "pairs", "series": ROLES, **changes})


def facts(name: str, modality: str, slices: int = 40) -> SeriesFacts:
    known = {"instances": slices, "modality": modality, "spacing_mm": [1.0, 1.0, 1.0], "shape": [64, 64, slices]}
    return SeriesFacts(name, f"1.{name}", attributes={"Modality": modality, "ImageType": ["ORIGINAL"]}, **known)


def routed(rule: RoutingRule, *series: SeriesFacts) -> tuple[list[dict[str, str]], dict[tuple[str, str], str]]:
    """The jobs, and {(series, role): the first condition that fails}."""
    made = routing_rules.study_routing([rule], MODELS, series)
    failing = {
        (row.series, row.role): next((one.name for one in row.conditions if not one.holds), "") for row in made.rows
    }
    return [dict(inputs) for _, inputs in made.jobs], failing


def test_a_rule_takes_a_series_for_each_role_and_none_where_one_is_missing_or_of_another_modality() -> None:
    assert routed(rule(), facts("a", "CT"), facts("b", "MR"))[0] == [{"fixed": "a", "moving": "b"}]
    found, failing = routed(rule(), facts("a", "CT"))
    assert found == [] and failing["a", "moving"] == "Modality"
    swapped = rule(series={"fixed": {"Modality": "PT"}, "moving": {"Modality": "CT"}})
    assert routed(swapped, facts("a", "CT"), facts("b", "MR"))[0] == []


def test_of_two_series_for_a_role_the_better_is_taken_and_the_other_says_so() -> None:
    found, failing = routed(rule(), facts("a", "CT"), facts("b", "MR", 20), facts("c", "MR", 40))
    assert found == [{"fixed": "a", "moving": "c"}]
    assert failing["b", "moving"] == "choice among series"


def test_a_series_that_would_be_both_images_is_neither() -> None:
    either = rule(series={"fixed": {"Modality": "MR"}, "moving": {"Modality": "MR"}})
    found, failing = routed(either, facts("a", "MR", 40), facts("b", "MR", 20))
    assert found == []
    assert failing["a", "fixed"] == failing["a", "moving"] == "image of the model"


def test_a_rule_that_names_one_role_is_refused() -> None:
    alone = rule(series={"fixed": {"Modality": "CT"}})
    with pytest.raises(UsageError, match="series has fixed, and the model's images are fixed, moving"):
        routing_rules.rules_of(NodeSettings(models={"pairs": {"path": "m"}}, rules=[alone]), MODELS)


def written(folder: Any) -> dict[str, list[Any]]:
    """A ball in two series of one study, which lies 2 voxels further along the second axis in the moving one."""
    image, _ = blob(0)
    made = {}
    for number, (role, step) in enumerate((("fixed", 0), ("moving", 2)), start=1):
        pixels = np.roll(image, step, axis=1)[None]
        moved = Image(pixels, Geometry(pixels.shape[1:], OBLIQUE), modality="MR")
        series_writing.write_series(moved, SeriesNames("p", "study", role, number), folder / role)
        made[role] = sorted((folder / role).iterdir())
    return made


def test_both_series_of_a_job_are_a_pair_whose_headers_share_a_world(tmp_path) -> None:
    with job_answers._cases(SimpleNamespace(study="study"), JobInputs(written(tmp_path)), PAIR) as [case]:
        fixed, moving = case.images["fixed"], case.images["moving"]
        assert moving.geometry.equals(fixed.geometry)
        assert moving.facts[ONTO].parts == ()
        assert moving.facts[UNMOVED].source.paths != fixed.source.paths


@pytest.mark.whole
def test_a_pair_is_answered_by_a_registration_and_the_moved_series_and_a_peer_gets_both(tmp_path) -> None:
    run, port, got = registering(shifted_balls(tmp_path / "data", count=6), tmp_path / "run").out, free_port(), []
    peers = [{"name": "pacs", "ae_title": "PACS", "host": "127.0.0.1", "port": port, "commit": False}]
    rules = [{"name": "r", "model": run.name, "series": BY_NAME, "send": ["pacs"]}]
    node = SmallNode(tmp_path / "node", run, peers=peers, rules=rules)
    entity = pynetdicom.AE("PACS")
    for kind in (DEFORMABLE_REGISTRATION, MRImageStorage):
        entity.add_supported_context(kind)
    handlers = [(pynetdicom.evt.EVT_C_STORE, lambda event: got.append(event.dataset) or 0x0000)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    sources = written(tmp_path / "series")
    node.receive(*(path for paths in sources.values() for path in paths))
    node.work()
    while Couriers(node.settings, node.database).deliver("pacs"):
        pass
    server.shutdown()
    [row] = node.rows(tables.JOBS)
    states = {one.state for one in node.rows(tables.DELIVERIES)}
    folder = node.result("findings.json").parent
    first = {path.name: path.read_bytes() for path in folder.iterdir()}
    assert node.worker.jobs.retry(row.job)
    node.work()
    again = {path.name: path.read_bytes() for path in folder.iterdir()}
    names = {one.name for one in node.rows(tables.ANSWERS)}
    node.store.close()
    node.database.close()
    assert (row.outcome, row.reason, states) == ("answered", None, {"sent"})
    assert names == {*first} >= {"answer_moved.nii.gz", "answer_transform.h5", "answer_transform.dcm"}
    # ITK writes the time into its HDF5 files.
    assert [name for name in first if first[name] != again[name] and not name.endswith(".h5")] == []
    slices = [one for one in got if one.SOPClassUID == MRImageStorage]
    [registration] = [one for one in got if one.SOPClassUID == DEFORMABLE_REGISTRATION]
    assert len({one.SeriesInstanceUID for one in slices}) == 1
    assert [one.InstanceNumber for one in sorted(slices, key=lambda one: one.InstanceNumber)] == list(range(1, 17))
    original = pydicom.dcmread(sources["fixed"][0])
    assert registration.StudyInstanceUID == slices[0].StudyInstanceUID == original.StudyInstanceUID
    assert slices[0].FrameOfReferenceUID == original.FrameOfReferenceUID
    places = {tuple(map(float, one.ImagePositionPatient)) for one in slices}
    assert places == {tuple(map(float, pydicom.dcmread(one).ImagePositionPatient)) for one in sources["fixed"]}
    made, kept = (hilum.read_transform(folder / f"answer_transform.{kind}") for kind in ("dcm", "h5"))
    points = Geometry((16, 16, 16), OBLIQUE).to_world(np.argwhere(np.ones((16, 16, 16))))
    apart = np.linalg.norm(
        spatial_transforms.carry_points(made, points) - spatial_transforms.carry_points(kept, points), axis=1
    )
    assert apart.mean() < 0.02  # mm: two fields are one in DICOM, linear between its voxels
