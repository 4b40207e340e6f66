"""Series, results and maps as the node's page shows them."""

from __future__ import annotations

import json
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from _pytest.mark.structures import ParameterSet
from fastapi.testclient import TestClient

import real_data
from hilum.files import file_formats
from hilum.files.dicom import object_identity
from hilum.service.node_folder import LOG, MODELS
from hilum.service.reading import sliced_volumes
from hilum.service.reading.sliced_volumes import VolumeCache
from hilum.service.records import tables
from hilum.service.web import response_shapes, server
from hilum.service.web.web_node import WebNode
from hilum.values import Geometry, Image
from matrices import thinned
from service.small_node import SmallNode
from service.thresholds import threshold_model
from service.web_served import served
from written_dicom import write_slice


def page(node: SmallNode) -> TestClient:
    """The node's routes, asked from its own machine, without a server."""
    web_node = WebNode(node.settings, node.database, node.store)
    return TestClient(server.web_app(web_node), base_url="http://127.0.0.1:8180")


def slice_of(client: TestClient, address: str) -> np.ndarray:
    """The values of a slice as a page makes them of an answer."""
    answer = client.get(address)
    assert answer.status_code == 200, answer.text
    head = answer.headers
    kind = {"uint8": "u1", "int16": "<i2", "float32": "<f4", "rgb8": "u1"}[head["X-Type"]]
    shape = (int(head["X-Rows"]), int(head["X-Columns"]), *((3,) if head["X-Type"] == "rgb8" else ()))
    assert head["content-encoding"] == "gzip"
    stored = np.frombuffer(answer.content, kind).reshape(shape)
    return float(head["X-Slope"]) * stored + float(head["X-Intercept"])


def voxels_of(source: np.ndarray, plane: dict, number: int) -> np.ndarray:
    """The same slice taken from the source's array, voxel by voxel, as the contract of a plane says."""
    index = [np.zeros((1, 1), int)] * 3
    if plane["axis"] is not None:
        index[plane["axis"]] = np.full((1, 1), number)
    for side, shape in ((plane["rows"], (-1, 1)), (plane["columns"], (1, -1))):
        places = np.arange(source.shape[side["axis"]])
        index[side["axis"]] = (places[::-1] if side["reversed"] else places).reshape(shape)
    return source[tuple(index[: 2 if plane["axis"] is None else 3])]


REAL = {
    "volume": "series/mr_hippocampus_001",
    "oblique": "series/mr_hitachi_oblique",
    "clip": "files/pydicomdata_emri_small.dcm",
    "tilted volume": "series/ct_philips_tilt_minus18.5",
    "volumes": "series/mr_ge_dti",
    "rescaled": "series/mr_pmod_non_isotropic_rescale",
    "colour": "series/sc_rgb_volume_j2k",
    "radiograph": "files/highdicom_dx_image.dcm",
    "coloured clip": "files/pydicom_examples_ybr_color.dcm",
    "clip of a heart": "files/dcm4che_nm_13frames_heart.dcm",
    "coloured clip of a palette": "files/dcm4che_us_palette_rle_10frames.dcm",
}


def kinds(*names: str) -> list[ParameterSet]:
    """These of the real images as parameters of a test."""
    return [pytest.param(name, id=name, marks=real_data.marks(f"dicom/{REAL[name]}")) for name in names]


def received(node: SmallNode, path: Path) -> str:
    """The UID of the one series of a file or folder, once the keeper has seen it."""
    files = sorted(path.glob("*.dcm")) if path.is_dir() else [path]
    node.receive(*files)
    node.work()
    return object_identity.read_identity(files[0]).series


@pytest.mark.parametrize("kind", thinned(5, kinds(*REAL)))
def test_a_pixel_of_a_slice_is_the_voxel_that_files_read_gives(tmp_path, kind):
    grid = check_slices(tmp_path, real_data.find(f"dicom/{REAL[kind]}"))
    assert grid["colour"] == ("colour" in kind)
    assert grid["kind"] == ("picture" if kind == "radiograph" else "clip" if "clip" in kind else "volume")


def test_so_it_is_in_volumes_at_two_times(tmp_path):
    (tmp_path / "series").mkdir()
    for n, pixels in enumerate(np.random.default_rng(0).integers(0, 500, (6, 5, 7)).astype(np.uint16)):
        time, depth = divmod(n, 3)
        tags = {"Modality": "MR", "TemporalPositionIdentifier": time + 1}
        write_slice(tmp_path / "series" / f"{n}.dcm", pixels, position=(0, 0, 2 * depth), **tags)
    grid = check_slices(tmp_path, tmp_path / "series")
    assert (grid["kind"], grid["frames"], grid["shape"]) == ("volume", 2, [7, 5, 3])


def check_slices(folder: Path, path: Path) -> dict:
    """The grid of a series in a node, of which the first and the last slice of each plane are those of its voxels."""
    node = SmallNode(folder / "node")
    uid, client, image = received(node, path), page(node), file_formats.read(path)
    grid = client.get(f"/api/series/{uid}/grid").json()
    assert (grid["schema"], grid["version"], grid["modality"]) == ("hilum.grid", 1, image.modality)
    source = np.moveaxis(image.data, 0, -1) if grid["colour"] else image.data[0]
    if source.dtype == np.uint16:  # colours of more than 8 bits are shown by their upper ones
        source = source >> 8 if grid["colour"] else source
    frame = grid["frames"] - 1
    if grid["frames"] > 1:
        assert grid["frames"] == image.frames
        source = source[frame]
    assert grid["shape"] == list(source.shape[:3] if grid["kind"] != "picture" else source.shape[:2])
    for name, plane in grid["planes"].items():
        for number in (0, plane["count"] - 1):
            got = slice_of(client, f"/api/series/{uid}/slices/{name}/{number}?frame={frame}")
            np.testing.assert_array_equal(got, voxels_of(source, plane, number).astype(np.float32))
    return grid


@pytest.mark.parametrize("kind", kinds("volume", "oblique", "tilted volume"))
def test_rows_and_columns_run_as_radiologists_look(tmp_path, kind):
    node = SmallNode(tmp_path / "node")
    grid = page(node).get(f"/api/series/{received(node, real_data.find(f'dicom/{REAL[kind]}'))}/grid").json()
    affine = np.array(grid["affine"])[:3, :3]

    def direction(side: dict) -> np.ndarray:
        step = affine[:, side["axis"]] * (-1 if side["reversed"] else 1)
        assert np.linalg.norm(step) == pytest.approx(side["mm"])
        return step / side["mm"]

    # To the right of the screen lies the patient's left, below it the back or the feet: RAS+ directions.
    left, back, feet = [-1, 0, 0], [0, -1, 0], [0, 0, -1]
    wanted = {"axial": (left, back), "coronal": (left, feet), "sagittal": (back, feet)}
    for name, plane in grid["planes"].items():
        for side, along in zip(("columns", "rows"), wanted[name], strict=True):
            cosines = direction(plane[side])
            assert int(np.abs(cosines).argmax()) == int(np.abs(along).argmax())
            assert cosines @ np.array(along) > 0.5


def test_a_reading_states_the_series_the_result_and_its_map_on_the_voxels(small_node, mr):
    small_node.receive(*mr)
    small_node.work()
    client, identity = page(small_node), object_identity.read_identity(mr[0])
    told = client.get(f"/api/studies/{identity.study}/reading").json()
    assert (told["schema"], told["study"], told["earlier"]) == ("hilum.reading", identity.study, [])
    assert (told["patient"], told["reasons"]) == ("p", small_node.settings.page.reasons)
    [one], [result] = told["series"], told["jobs"]
    assert (one["series"], one["kind"], one["modality"], one["ours"]) == (identity.series, "volume", "MR", False)
    [job] = small_node.rows(tables.JOBS)
    assert (result["job"], result["series"], result["outcome"]) == (job.job, [identity.series], "answered")
    assert (result["maps"], result["revision"], result["verdict"]) == (["mask"], 0, None)
    assert [(label["label"], label["name"]) for label in result["labels"]] == [(1, "bright")]
    assert result["findings"][0]["concept"] == "bright"
    grid = client.get(f"/api/series/{identity.series}/grid").json()
    bright = file_formats.read(mr[0].parent).data[0] > 40.5
    for name, plane in grid["planes"].items():
        got = slice_of(client, f"/api/jobs/{job.job}/maps/mask/slices/{name}/4")
        np.testing.assert_array_equal(got, voxels_of(bright, plane, 4))


def test_the_worklist_names_patient_modality_and_finding_and_tells_of_changes(tmp_path, mr):
    with served(tmp_path / "node") as node:
        first = node.client.get("/api/worklist").json()["rows"]
        with node.client.stream("GET", "/api/worklist/events") as stream:
            lines = stream.iter_lines()
            assert [next(lines), next(lines)] == ["event: worklist", "data:"]  # the list as it is
            node.store(*(path.read_bytes() for path in mr))
            study = object_identity.read_identity(mr[0]).study
            node.complete(study, {"PatientName": "Doe^Jane^Ann", "StudyDescription": "Brain"}, modality="MR")
            assert [next(lines), next(lines), next(lines)] == ["", "event: worklist", "data:"]
        [row] = node.client.get("/api/worklist").json()["rows"]
    assert first == []
    assert (row["patient"], row["modality"], row["description"]) == ("Doe, Jane Ann", "MR", "Brain")
    assert (row["finding"], row["job"], row["verdict"]) == ("", None, None)


def test_the_node_says_why_a_rule_did_not_take_a_series(tmp_path, mr):
    model = threshold_model(tmp_path / "model", 40.5)
    rules = [{"name": "head", "model": "threshold.onnx", "when": {"SeriesDescription": "~head"}}]
    node = SmallNode(tmp_path / "node", model, rules=rules)
    facts = [asdict(one) for one in node.models.values()]
    (tmp_path / "node" / MODELS).write_text(json.dumps({"schema": "hilum.models", "version": 1, "rows": facts}))
    node.receive(*mr)
    node.work()
    (tmp_path / "node" / LOG).write_text(
        '{"at": 1.0, "process": "keeper", "level": "warning", "message": "a peer is away"}\n'
        '{"at": 2.0, "process": "keeper", "level": "info", "message": "all is well"}\nbroken'
    )
    told = page(node).get("/api/node").json()
    identity = object_identity.read_identity(mr[0])
    [row] = told["untaken"]
    assert (row["study"], row["series"], row["rule"]) == (identity.study, identity.series, "head")
    assert row["fails"] == ["SeriesDescription is series, the rule asks for ~head"]
    assert [one["message"] for one in told["troubles"]] == ["a peer is away"]


@pytest.mark.parametrize(
    ("stated", "shown"),
    [
        ("Doe^John^^Dr", "Doe, John"),
        ("Yamada^Tarou=山田^太郎", "Yamada, Tarou"),
        ("=山田^太郎", "山田, 太郎"),
        (None, ""),
    ],
)
def test_a_name_is_shown_as_people_write_it(stated, shown):
    assert response_shapes.shown_name(stated) == shown


def test_slices_are_packed_for_other_machines_and_for_proxies_alone(small_node, mr):
    small_node.receive(*mr)
    small_node.work()
    far, at = page(small_node), f"/api/series/{object_identity.read_identity(mr[0]).series}/slices/axial/0"
    near = TestClient(far.app, base_url="http://127.0.0.1:8180", client=("127.0.0.1", 4000))
    answers = [far.get(at), near.get(at), near.get(at, headers={"X-Forwarded-For": "10.0.0.7"})]
    assert [one.headers.get("content-encoding") for one in answers] == ["gzip", None, "gzip"]
    assert len({one.content for one in answers}) == 1


def test_whole_numbers_are_exact_where_a_slice_spans_less_than_16_bits():
    wide = np.array([[40000, 65535], [0, 1]], np.uint16)
    for plane in (wide, wide.astype(np.int64) - 100_000, wide.astype(np.int16), wide.astype(np.float64) / 4):
        made = sliced_volumes.stored_slice(plane, colour=False)
        np.testing.assert_array_equal(made.pixels * made.slope + made.intercept, plane)


def test_what_was_not_looked_at_longest_is_given_up_first_and_what_does_not_fit_is_read_slice_by_slice():
    image = Image(np.zeros((1, 10, 10, 10), np.int16), Geometry.of_spacing((10, 10, 10), (1, 1, 1)))
    asked = list[str]()

    def reading(name: str):
        def read_it():
            asked.append(name)
            return [image]

        return read_it

    volumes = VolumeCache(4500)  # two of them
    for name in ("a", "b", "a", "c", "a", "b"):
        volumes.load(name, reading(name))
    assert asked == ["a", "b", "c", "b"]
    [small] = VolumeCache(100).load("a", reading("a"))
    assert small.slice("axial", 3).pixels.shape == (10, 10)
    volumes.close()
