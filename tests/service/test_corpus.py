"""Real series through a node: its answers lie on their voxels, and damaged objects of them stop nothing."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

import hilum
import real_data
from hilum.errors import FormatError, HilumError
from hilum.files.dicom import object_identity
from hilum.layouts import dataset_layouts
from hilum.layouts.layout import DatasetOptions
from hilum.service.dicom import sending
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.records import tables
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model

SHIPPED = ("ct_23x38x3_with_seg", "mr_hippocampus_001", "mr_hitachi_oblique", "mr_pmod_non_isotropic_rescale")
# Of each kind of geometry one: tilted, with a gap, prone, lying on a side, oblique, compressed, of several volumes.
CORPUS = (
    "ct_philips_tilt_minus18.5",
    "ct_siemens_tilt15.5_missing_slice",
    "mr_compressed_rle",
    "mr_ge_dti",
    "mr_genesis_coronal_prone",
    "mr_hitachi_oblique",
    "mr_siemens_sagittal_decubitus_left",
)


def files_of(folder: Path) -> list[Path]:
    found = []
    for path in sorted(path for path in folder.rglob("*") if path.is_file()):
        try:
            object_identity.read_identity(path)
            found.append(path)
        except HilumError:
            continue
    return found


def check_answers(node: SmallNode, segmentations: dict[str, Path]) -> list[str]:
    """The outcomes of all jobs, each result on its source's voxels; segmentations: {UID: file}."""
    uids = {row.uid: row for row in node.rows(tables.SERIES_ROWS)}
    outcomes = {}
    for job in node.rows(tables.JOBS):
        [own] = [row for row in uids.values() if row.series == job.inputs["series"]["image"]]
        outcomes[own.uid] = job.outcome
        if job.outcome != "answered":
            assert job.reason
            continue
        place = node.settings.folder / "studies" / job.study[:2] / job.study / own.series
        [case] = dataset_layouts.read_dataset(place, DatasetOptions(references=False, channels=1))
        [image] = case.images.values()
        bright = np.asarray(image.data)[0] > LEVEL
        answer = hilum.read(node.settings.folder / "results" / job.job / "answer.nii.gz")
        np.testing.assert_array_equal(np.asarray(answer.data)[0], bright)
        marked_volumes = []
        for row in node.rows(tables.ANSWERS):
            if row.job == job.job and row.kind == "seg":
                seg = hilum.read(segmentations[row.sop_instance_uid])
                places = seg.geometry.to_world(np.argwhere(np.asarray(seg.data)[0] > 0))
                marked = np.zeros(image.geometry.shape, bool)
                marked[tuple(np.rint(image.geometry.to_index(places)).astype(int).T)] = True
                marked_volumes.append(marked.tobytes())
        if marked_volumes:
            # Of a series of several volumes each in which something is marked has a SEG of its own.
            volumes = list(bright) if image.frames else [bright]
            expected = [volume for volume in volumes if volume.any()] or volumes[:1]
            assert sorted(marked_volumes) == sorted(volume.tobytes() for volume in expected)
    no_image = ("SEG", "SR", "PR", "RTSTRUCT")
    for row in uids.values():
        assert row.uid in outcomes or row.problem or row.modality in no_image or "LOCALIZER" in str(row.attributes)
    return list(outcomes.values())


def written(node: SmallNode) -> dict[str, Path]:
    """{UID: file} of the DICOM objects that jobs made."""
    results = node.settings.folder / "results"
    return {
        row.sop_instance_uid: results / row.job / row.name for row in node.rows(tables.ANSWERS) if row.sop_instance_uid
    }


@pytest.mark.whole
@pytest.mark.parametrize(("folder", "chosen"), real_data.facts(shipped=(SHIPPED, 3), corpus=(CORPUS, 5)))
def test_an_answer_lies_on_the_voxels_of_its_series_whatever_their_orientation(small_node, folder, chosen):
    names, fewest = chosen
    for name in names:
        small_node.receive(*files_of(folder / "dicom" / "series" / name))
    small_node.work()
    assert check_answers(small_node, written(small_node)).count("answered") >= fewest


@pytest.mark.whole
@pytest.mark.parametrize(("folder", "fewest"), real_data.facts(shipped=4, corpus=15))
def test_an_answer_fetched_back_from_a_pacs_lies_on_the_voxels_of_every_series_that_can_be_read(
    small_node, folder, fewest, orthanc, tmp_path
):
    for series in sorted(path for path in (folder / "dicom" / "series").iterdir() if path.is_dir()):
        small_node.receive(*files_of(series))
    small_node.work()
    pacs = DicomPeer("pacs", orthanc.ae_title, "127.0.0.1", orthanc.port)
    assert all(row.is_stored for row in sending.send_files("HILUM", pacs, list(written(small_node).values())))
    fetched = {}
    for instance in orthanc.ask("/instances?expand"):
        uid = instance["MainDicomTags"]["SOPInstanceUID"]
        fetched[uid] = tmp_path / f"{instance['ID']}.dcm"
        fetched[uid].write_bytes(orthanc.ask(f"/instances/{instance['ID']}/file"))
    assert fetched.keys() == written(small_node).keys()
    assert check_answers(small_node, fetched).count("answered") >= fewest


@pytest.fixture(scope="module")
def shared_node(tmp_path_factory):
    """A node for all examples of a test."""
    folder = tmp_path_factory.mktemp("shared")
    made = SmallNode(folder / "node", threshold_model(folder / "model", LEVEL))
    yield made
    made.store.close()
    made.database.close()


@pytest.fixture(scope="module", params=real_data.FOLDERS)
def small_files(request) -> list[bytes]:
    """Real objects, broken ones too, of which many go through a node in a second."""
    folder = request.param / "dicom"
    paths = [path for kind in ("files", "broken") for path in sorted((folder / kind).glob("*.dcm"))]
    return [path.read_bytes() for path in paths if path.stat().st_size < 100_000]


@settings(max_examples=20, suppress_health_check=list(HealthCheck))
@given(
    which=st.integers(0, 10**6),
    changes=st.lists(st.tuples(st.integers(0, 3000), st.integers(0, 255)), max_size=4),
    cut=st.integers(0, 500),
)
def test_a_damaged_real_object_has_its_study_answered_or_refused_with_a_reason(
    shared_node, small_files, caplog, which, changes, cut
):
    whole = bytearray(small_files[which % len(small_files)])
    for place, value in changes:
        whole[place % len(whole)] = value
    try:
        with shared_node.store.open_part() as part:
            part.write(bytes(whole[: len(whole) - cut]))
            shared_node.store.keep(part, "test")
    except FormatError:
        return
    shared_node.work()
    for row in shared_node.rows(tables.STUDIES):
        assert row.state in ("done", "aside") and (row.outcome == "answered" or row.reason), row
        assert row.uid not in caplog.text
