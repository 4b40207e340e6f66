"""The page: who may ask, what it answers, what it refuses; and a browser that looks at it."""

from __future__ import annotations

import json
import shutil
import socket
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from urllib.parse import quote

import nibabel
import numpy as np
import pytest

import browsers
import trained
from hilum.doors import AllowedPaths, JobDesk, WarmProcess, loopback, studio_server
from hilum.errors import UsageError
from hilum.jobs import Workspace, workspace
from hilum.verbs import studio as studio_verb

TestClient = pytest.importorskip("fastapi.testclient").TestClient
ADDRESS = "http://127.0.0.1:5000"


@pytest.fixture(scope="module")
def warm(tmp_path_factory: pytest.TempPathFactory) -> Iterator[WarmProcess]:
    """It takes seconds to start."""
    made = WarmProcess("hilum.verbs.studio_answers", tmp_path_factory.mktemp("warm"))
    yield made
    made.close()


@pytest.fixture
def page(tmp_path: Path, warm: WarmProcess) -> studio_server.Studio:
    (tmp_path / "data").mkdir()
    workspace = Workspace.open(tmp_path / "work")
    desk = JobDesk(workspace, AllowedPaths.below([tmp_path / "data"], workspace.folder), "studio")
    return studio_server.Studio(desk, warm)


@pytest.fixture
def client(page: studio_server.Studio) -> TestClient:
    """A browser that came by the address that was printed."""
    made = TestClient(loopback.LocalOnly(studio_server.studio_app(page)), base_url=ADDRESS)
    assert made.get(f"/{page.token}").url == f"{ADDRESS}/"
    return made


def test_the_token_is_in_the_address_alone_and_a_cookie_takes_its_place(page, client):
    assert "studio.js" in client.get("/").text
    cookie = client.cookies.jar
    assert [(one.name, one.value != page.token) for one in cookie] == [("hilum-5000", True)]
    assert "unsafe-eval" not in client.get("/").headers["content-security-policy"]
    later = studio_server.studio_app(page)  # the server was started again: the cookie of before opens nothing
    again = TestClient(later, base_url=ADDRESS, cookies={one.name: one.value for one in cookie})
    assert again.get("/api/jobs").status_code == 403


@pytest.mark.parametrize("path", ["/", "/api/jobs", "/static/studio.js", "/files/jobs", "/wrong-token", "/%00"])
def test_without_the_token_nothing_is_told(page, path):
    stranger = TestClient(loopback.LocalOnly(studio_server.studio_app(page)), base_url=ADDRESS)
    assert stranger.get(path).status_code == 403


@pytest.mark.parametrize(
    "headers",
    [{"host": "evil.example:5000"}, {"origin": "http://evil.example"}, {"sec-fetch-site": "cross-site"},
     {"origin": "null"}, {"host": "evil.example"}, {"origin": "http://127.0.0.1:5001"}],
)  # fmt: skip
def test_another_host_or_origin_is_refused_with_the_cookie_too(client, headers):
    assert client.get("/api/jobs", headers=headers).status_code == 421
    assert client.post("/api/jobs/check", json={"data": "."}, headers=headers).status_code == 421


def key_of(image: str, mask: str) -> str:
    """The name by which the page asks for an image with a label map."""
    return json.dumps([image, mask]).encode().hex()


HOSTILE = [
    ("GET", "/files/../../etc/passwd", None, (404, 422)),
    ("GET", "/files/%2e%2e/%2e%2e/etc/passwd", None, (404, 422)),
    ("GET", "/files/link/passwd", None, (404, 422)),
    ("GET", "/static/..%2f..%2fpyproject.toml", None, (404,)),
    ("GET", "/api/table?path=/etc/passwd", None, (422,)),
    ("GET", "/api/table?path=..%2f..%2fsecret.csv", None, (422,)),
    ("GET", "/api/folders?below=/", None, (422,)),
    ("GET", "/api/table?path=absent.csv", None, (422,)),
    ("GET", "/api/table?path=a%00b", None, (422,)),
    ("GET", "/api/doubts?data=/etc", None, (422,)),
    ("GET", "/api/doubts?data=.&named=/etc/passwd", None, (422,)),
    ("GET", "/api/doubts?data=.&named=absent.csv", None, (422,)),
    ("GET", "/api/thumbnail?path=/etc/hostname", None, (422,)),
    ("GET", f"/api/series/{key_of('/etc/hostname', '/etc/hostname')}/grid", None, (422,)),
    ("GET", f"/api/studies/{key_of('../../a.nii', 'link/passwd')}/reading", None, (422,)),
    ("GET", "/api/studies/00ff/reading", None, (422,)),
    ("GET", "/api/jobs/zz/maps/mask/slices/axial/0", None, (422,)),
    ("PUT", f"/api/jobs/{key_of('data', '/etc/hosts')}/correction", {"strokes": [{"stroke": "a"}]}, (422,)),
    ("PUT", f"/api/jobs/{key_of('data', 'data')}/correction", {"strokes": []}, (422,)),
    ("GET", "/api/jobs/..%2f..%2fx/result", None, (404, 422)),
    ("GET", "/api/jobs/0001-check/progress?start=-5", None, (422,)),
    ("POST", "/api/stop/0099-train", {}, (422,)),
    ("POST", "/api/jobs/check", {"data": "/etc"}, (422,)),
    ("POST", "/api/jobs/check", {"data": "data", "out": "/srv/x"}, (422,)),
    ("POST", "/api/jobs/check", {"data": "data", "overwrite": True}, (422,)),
    ("POST", "/api/jobs/check", {"data": ["x"] * 50_000}, (422,)),
    ("POST", "/api/jobs/check", ["no", "object"], (422,)),
    ("POST", "/api/jobs/serve", {}, (422,)),
    ("POST", "/api/jobs/nothing", {}, (422,)),
    ("POST", "/api/plan", {"data": "/etc"}, (422,)),
    ("POST", "/api/plan", {}, (422,)),
    ("POST", "/api/table", {"path": "/etc/x.csv", "head": ["a"], "rows": []}, (422,)),
    ("POST", "/api/table", {"path": "data/x.csv"}, (422,)),
    ("POST", "/api/table", {"path": "data/x.csv", "head": "a", "rows": [["b"]]}, (422,)),
    ("POST", "/api/table", {"path": "data/x.csv", "head": ["a"], "rows": [1]}, (422,)),
    ("POST", "/api/table", [1], (422,)),
    ("POST", "/api/jobs/predict", {"model": "data", "inputs": []}, (422,)),
    ("PUT", "/api/files/..", None, (404, 405, 422)),
    ("PUT", "/api/files/.hidden", None, (422,)),
]


@pytest.mark.parametrize(("method", "path", "body", "codes"), HOSTILE)
def test_what_leads_out_or_fits_no_form_is_refused_and_starts_nothing(client, page, method, path, body, codes):
    (page.desk.workspace.folder / "link").symlink_to("/etc")
    answer = client.request(method, path, json=body)
    assert answer.status_code in codes
    assert "root:" not in answer.text
    assert page.desk.workspace.list_jobs()[0] == []


BODIES = [
    b"", b"{", b"\xff\xfe", b"null", b"3", b'"data"', b"[" * 50_000, b'{"data": NaN}', b'{"data": "\\ud800"}',
    b'{"data": 1e999}', b'{"data": {"a": 1}}', b'{"data": "a\\u0000b"}',
    b'{"path": "data/x.csv", "head": ["\\ud800"], "rows": [["\\udfff"]]}', b'{"strokes": [{"stroke": NaN}]}',
]  # fmt: skip


@pytest.mark.parametrize("body", BODIES)
def test_a_body_of_any_bytes_is_answered_in_words_and_never_by_a_bare_500(client, page, body):
    place = key_of("data", "data")
    for method, path in (
        ("POST", "/api/plan"), ("POST", "/api/jobs/check"), ("POST", "/api/jobs/train"), ("POST", "/api/table"),
        ("POST", "/api/stop/0099-train"), ("PUT", f"/api/jobs/{place}/correction"),
    ):  # fmt: skip
        answer = client.request(method, path, content=body, headers={"Content-Type": "application/json"})
        assert (answer.status_code, set(answer.json())) == (422, {"problem", "where", "remedy"}), path


WAYS_OUT = ["/etc/passwd", "../../etc/passwd", "link/passwd", "data/../../../etc/shadow", "~root/.ssh", "//etc//hosts"]
WAYS_OUT += ["/proc/self/environ", "file:///etc/passwd", "a\0b", "x" * 5000, "<script>alert(1)</script>", "../" * 99]
WAYS_OUT += ["/dev/zero", "..\\..\\etc", "%2e%2e/%2e%2e", "$(id)", "-", "--overwrite"]


def test_two_hundred_hostile_calls_are_refused_and_the_page_still_answers(client, page):
    (page.desk.workspace.folder / "link").symlink_to("/etc")
    calls = [("PUT", f"/api/files/.{number}", None) for number in range(5)]
    for way in WAYS_OUT:
        quoted, key = quote(way, safe=""), key_of(way, way)
        calls += [("GET", f"/api/{one}={quoted}", None) for one in ("table?path", "thumbnail?path", "folders?below")]
        calls += [("GET", f"/api/series/{key}/grid", None), ("GET", f"/api/studies/{key}/reading", None)]
        calls += [("POST", f"/api/jobs/{name}", {"data": way, "overwrite": True}) for name in ("check", "train")]
        calls += [("POST", "/api/plan", {"data": way}), ("POST", f"/api/stop/{quoted}", None)]
        calls += [("POST", "/api/table", {"path": f"{way}/dataset.csv", "head": [], "rows": []})]
        calls += [("PUT", f"/api/jobs/{key}/correction", {"strokes": [{"stroke": way}]}), ("GET", f"/{quoted}", None)]
    answers = [client.request(method, path, json=body) for method, path, body in calls]
    assert len(answers) >= 200
    accepted = {path for (_, path, _), one in zip(calls, answers, strict=True) if one.status_code == 200}
    assert accepted <= {"/api/table"}  # what a person has written into a table becomes one of the workspace
    assert {one.status_code for one in answers} <= {200, 403, 404, 405, 422}
    assert not any("root:" in one.text for one in answers)
    assert (client.get("/api/runs").json(), page.desk.workspace.list_jobs()) == ([], ([], []))


def test_a_file_that_is_dropped_lies_in_the_workspace_under_its_name(client, page):
    first, second = (client.put("/api/files/scan.nii.gz", content=b"voxels").json()["path"] for _ in range(2))
    assert (first, second) == ("uploads/1/scan.nii.gz", "uploads/2/scan.nii.gz")
    assert (page.desk.workspace.folder / second).read_bytes() == b"voxels"


def test_pages_of_reports_run_without_the_origin_of_this_page(client, page):
    (page.desk.workspace.folder / "report.html").write_text("<script>fetch('/api/jobs')</script>")
    assert client.get("/files/report.html").headers["content-security-policy"].startswith("sandbox")


def test_an_edited_table_is_a_new_one_and_the_data_are_left_alone(client, page):
    folder = page.desk.workspace.folder / "check-data"
    folder.mkdir()
    (folder / "dataset.csv").write_text("case,label\na,yes\n")
    table = client.get("/api/table", params={"path": "check-data/dataset.csv"}).json()
    assert table == {"head": ["case", "label"], "rows": [["a", "yes"]]}
    kept = client.post(
        "/api/table", json={"path": "check-data/dataset.csv", "head": table["head"], "rows": [["a", "no"]]}
    )
    assert (page.desk.workspace.folder / kept.json()["path"]).read_text() == "case,label\na,no\n"
    assert (folder / "dataset.csv").read_text() == "case,label\na,yes\n"


def test_a_list_of_doubtful_references_beside_the_data_or_named_gives_its_cases_in_its_order(client, page):
    data, work = page.desk.paths.roots[0], page.desk.workspace.folder
    (data / "set").mkdir()
    asked = {"data": str(data / "set")}
    assert client.get("/api/doubts", params=asked).json() == []
    (data / "set" / "relabel.csv").write_text(
        "case,label,why,reference,probable,probability_reference,probability_probable,error\n"
        "9,all,probable label error,dark,bright,0.02,0.98,0.9\n"
        "1,all,ranked by disagreement,dark,dark,0.6,0.6,0.4\n"
    )
    beside = [["9", "dark 0.020, probably bright 0.980"], ["1", "dark 0.600"]]
    assert client.get("/api/doubts", params=asked).json() == beside
    assert client.get("/api/doubts", params={"data": str(data / "set" / "dataset.csv")}).json() == beside

    (work / "run" / "evaluation").mkdir(parents=True)
    other = work / "run" / "evaluation" / "relabel.csv"
    other.write_text("case,label,why,error\nb,tumour,,0.75\na,organ,,0.2\nb,organ,,0.1\n")
    named = [["b", "tumour: error 0.750; organ: error 0.100"], ["a", "organ: error 0.200"]]
    for place in ("run/evaluation", str(other)):
        assert client.get("/api/doubts", params={**asked, "named": place}).json() == named
    other.write_text("image,error\nb,0.75\n")
    refused = client.get("/api/doubts", params={**asked, "named": str(other)})
    assert (refused.status_code, refused.json()["problem"]) == (422, "has no column 'case'")


def test_a_list_that_is_a_link_out_of_the_folders_is_refused(client, page, tmp_path):
    data = page.desk.paths.roots[0]
    (tmp_path / "secret.csv").write_text("case,label\nsomebody,ill\n")
    (data / "relabel.csv").symlink_to(tmp_path / "secret.csv")
    assert client.get("/api/doubts", params={"data": str(data)}).status_code == 422


def test_a_label_map_is_corrected_into_a_new_file_and_is_kept_itself(client, page):
    work = page.desk.workspace.folder
    data = trained.blobs(work / "blobs", 2)
    image, mask = data / "images" / "case00.nii.gz", data / "labels" / "case00.nii.gz"
    key, before = key_of("blobs/images/case00.nii.gz", "blobs/labels/case00.nii.gz"), mask.read_bytes()
    [job] = client.get(f"/api/studies/{key}/reading").json()["jobs"]
    assert [one["name"] for one in job["labels"]] == ["label 1", "label 2"]
    grid = client.get(f"/api/series/{key}/grid").json()
    voxels, values = (np.asarray(nibabel.load(one).dataobj) for one in (image, mask))
    assert grid["shape"] == list(voxels.shape)
    plane, side = next(iter(grid["planes"].items()))
    at = side["count"] // 2
    cut = client.get(f"/api/jobs/{key}/maps/mask/slices/{plane}/{at}")
    assert set(np.frombuffer(cut.content, cut.headers["x-type"])) == set(np.take(values, at, side["axis"]).ravel())
    stroke = {"stroke": "a", "label": 2, "runs": [[7, 3]]}
    saved = client.put(f"/api/jobs/{key}/correction", json={"strokes": [stroke]}).json()
    made = np.asarray(nibabel.load(work / saved["path"]).dataobj)
    assert saved["path"] == "corrected-1/case00.nii.gz"
    assert np.flatnonzero(made != values).tolist() == [n for n in (7, 8, 9) if values.ravel()[n] != 2]
    assert made.ravel()[7:10].tolist() == [2, 2, 2]
    assert mask.read_bytes() == before
    again = client.put(f"/api/jobs/{saved['study']}/correction", json={"strokes": [{**stroke, "label": 0}]}).json()
    assert np.asarray(nibabel.load(work / again["path"]).dataobj).ravel()[7:10].tolist() == [0, 0, 0]
    for wrong in ({**stroke, "runs": [[values.size - 1, 2]]}, {**stroke, "label": 9}):
        assert client.put(f"/api/jobs/{key}/correction", json={"strokes": [wrong]}).status_code == 422
    other = key_of("blobs/images/case00.nii.gz", "blobs/absent.nii.gz")
    assert client.get(f"/api/studies/{other}/reading").status_code == 422


def test_every_command_of_the_page_has_a_form(client):
    commands = {one["name"]: one for one in client.get("/api/commands").json()}
    assert {"package", "explain", "document", "calibrate", "predict", "compare", "train"} <= set(commands)
    assert "out" in commands["package"]["paths"]


def test_a_finished_run_is_listed_with_its_metric_and_an_unfinished_one_without(client, page, segmented):
    work = page.desk.workspace.folder
    (work / "run").symlink_to(segmented.out)
    for name in ("plan.yaml", "split.csv"):
        (work / "half").mkdir(exist_ok=True)
        (work / "half" / name).write_text("")
    runs = {one["name"]: one for one in client.get("/api/runs").json()}
    assert runs["run"]["metric"] == "dice"
    assert runs["run"]["low"] <= runs["run"]["value"] <= runs["run"]["high"]
    assert runs["run"]["report"] == "run/report.html"
    assert (runs["half"]["metric"], runs["half"]["report"]) == ("", "")


def test_a_plan_has_its_decisions_with_controls_and_a_change_names_what_cannot_be(client, page, tmp_path):
    data = trained.blobs(tmp_path / "data" / "blobs", 8)
    values = {"data": str(data), "labels": trained.LABELS, "minutes": 1, "device": "cpu"}
    made = client.post("/api/plan", json=values).json()
    decisions = {one["name"]: one for one in made["decisions"]}
    assert decisions["training.batch"]["control"]["kind"] == "number"
    assert decisions["training.batch"]["because"]
    assert sum(not one["usual"] for one in made["decisions"]) < len(made["decisions"])
    changed = client.post("/api/plan", json={**values, "assignments": {"training.batch": 2}}).json()
    assert {one["name"]: one["value"] for one in changed["decisions"]}["training.batch"] == 2
    typed = client.post("/api/plan", json={**values, "assignments": ["training.batch=2"]}).json()
    assert typed["decisions"] == changed["decisions"]
    untyped = client.post("/api/plan", json={**values, "assignments": ["training.batch"]})
    assert (untyped.status_code, untyped.json()["where"]) == (422, "--set")
    wrong = client.post("/api/plan", json={**values, "assignments": {"training.batch": -1}})
    assert (wrong.status_code, wrong.json()["where"]) == (422, "training.batch")
    gone = client.post("/api/plan", json={"data": str(tmp_path / "data" / "gone")})
    assert (gone.status_code, "gone" in gone.json()["where"]) == (422, True)
    kept = client.post("/api/plan?keep=true", json=values).json()
    assert (page.desk.workspace.folder / kept["out"]).read_text().startswith("# A plan of hilum")
    assert "--out" in kept["shell"]


def test_a_training_that_is_stopped_for_its_best_is_followed_by_the_command_that_evaluates_it(
    client, page, monkeypatch
):
    program = page.desk.workspace.folder / "program"
    program.write_text("#!/bin/sh\nexec sleep 60\n")
    program.chmod(0o755)
    monkeypatch.setattr(workspace.sys, "executable", str(program))
    training = client.post("/api/jobs/train", json={"data": "data", "minutes": 1}).json()
    following = client.post(f"/api/stop/{training['id']}?keep=true").json()
    assert following["shell"] == f"hilum train --resume {training['out']} --end-now"
    assert following["out"] == training["out"]
    page.desk.workspace.stop(following["id"])


def test_a_folder_that_vanishes_is_named_at_every_question_and_costs_no_server(client, page, tmp_path):
    data = trained.blobs(tmp_path / "data" / "blobs", 1)
    paths = str(data / "images" / "case00.nii.gz"), str(data / "labels" / "case00.nii.gz")
    grid = f"/api/series/{key_of(*paths)}/grid"
    assert client.get(grid).status_code == 200
    shutil.rmtree(data)
    for path in (
        grid,
        f"/api/thumbnail?path={paths[0]}",
        f"/api/folders?below={data}",
        f"/api/table?path={data}/a.csv",
    ):
        assert client.get(path).status_code == 422, path
    shutil.rmtree(page.desk.workspace.folder)
    for path in ("/api/jobs", "/api/runs"):
        assert client.get(path).status_code == 422, path
        assert client.get(path).json()["problem"]
    assert client.get("/").status_code == 200


def test_a_port_that_is_taken_is_refused():
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(UsageError, match="cannot be listened on"):
        loopback.listen(taken.getsockname()[1])


def test_a_second_studio_on_a_workspace_is_told_of_the_first(tmp_path):
    workspace = Workspace.open(tmp_path / "work")
    with (
        studio_verb._only_studio(workspace),
        pytest.raises(UsageError, match=r"has shown it as a page since .* Use the page that is open"),
        studio_verb._only_studio(workspace),
    ):
        pass


def test_without_a_browser_the_address_is_said_and_nothing_fails(monkeypatch, caplog):
    def absent(address: str) -> bool:
        raise studio_verb.webbrowser.Error("could not locate runnable browser")

    monkeypatch.setattr(studio_verb.webbrowser, "open", absent)
    studio_verb.open_browser(ADDRESS)
    assert "go to the address above" in caplog.text


@pytest.mark.whole
def test_the_first_line_of_studio_is_its_address_and_a_browser_paints_the_page(tmp_path):
    program = [
        sys.executable,
        "-m",
        "hilum",
        "studio",
        str(tmp_path / "work"),
        "--root",
        str(tmp_path),
        "--no-browser",
    ]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=tmp_path) as server:
        try:
            address = server.stdout.readline().strip()
            assert address.startswith("http://127.0.0.1:")
            (tmp_path / "browser").mkdir()
            with browsers.browser_running(tmp_path / "browser") as browser:
                painted = "document.querySelectorAll('nav a').length === 4"
                with browser.visited(address, painted, size=(1000, 700), limit_s=20) as shown:
                    links = shown.value("[...document.querySelectorAll('nav a')].map(x => x.textContent).join(' ')")
                    assert links == "Data Plan Training Runs"
                    assert shown.value("location.pathname") == "/"
                    # Each field has words for those who hear the page.
                    assert shown.value(
                        "[...document.querySelectorAll('input, select')].every(x => x.labels.length > 0)"
                    )
                    assert shown.complaints == []
        finally:
            server.terminate()
