"""OHIF beside the node: its files and settings, who may see them, and a segmentation on the slice where it belongs."""

from __future__ import annotations

import json
import os
import re
import time
from pathlib import Path

import httpx
import numpy as np
import pytest

from browsers import browser_running
from hilum.errors import UsageError
from hilum.files import file_formats, result_images
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service import configuration, supervisor
from hilum.values import Geometry, Image, Label
from ports import free_port
from service.objects_sent import encoded, simulated
from service.web_served import served

SIDE, SLICES = 64, 20
# Pixels of a shown segment differ so much between their colours; greys do not.
COLOURED = 40


@pytest.fixture(scope="module")
def viewer(tmp_path_factory):
    """A node with a study and a folder that looks like a build, and how the viewer is asked without a token."""
    build = tmp_path_factory.mktemp("build")
    for name in ("index.html", "app-config.js", "1.bundle.0123456789abcdef.js", "0123456789abcdef.wasm"):
        (build / name).write_text(name)
    (build.parent / "secret.txt").write_text("secret")
    port = free_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HILUM_TOKEN", "sesame")
        with served(build.parent / "viewing", token="sesame", ohif={"folder": build, "port": port}) as web:  # noqa: S106
            web.store(encoded(simulated()))
            with httpx.Client(base_url=f"http://127.0.0.1:{port}", auth=("anyone", "sesame")) as client:
                yield client


def test_its_settings_name_this_node_and_its_files_come_as_they_are(viewer):
    answer = viewer.get("/app-config.js")
    stated = json.loads(answer.text.removeprefix("window.config = ").rstrip(";\n"))
    [source] = stated["dataSources"]
    assert source["configuration"]["qidoRoot"] == "/dicomweb"
    [study] = viewer.get(source["configuration"]["qidoRoot"] + "/studies").json()
    assert study["0020000D"]["Value"] == ["1.2"]
    script, code = viewer.get("/1.bundle.0123456789abcdef.js"), viewer.get("/0123456789abcdef.wasm")
    assert (script.text, script.headers["content-type"]) == (
        "1.bundle.0123456789abcdef.js",
        "text/javascript; charset=utf-8",
    )
    assert code.headers["content-type"] == "application/wasm" and "immutable" in code.headers["cache-control"]
    assert answer.headers["cache-control"] == "no-store"


def test_an_address_within_the_viewer_is_its_page_and_none_leads_out_of_its_folder(viewer):
    assert viewer.get("/viewer?StudyInstanceUIDs=1.2").text == "index.html"
    assert viewer.get("/nothing.js").status_code == viewer.get("/dicomweb/nothing").status_code == 404
    assert viewer.get("/%2e%2e/secret.txt").status_code == 404
    assert "secret" not in viewer.get("/..%2fsecret.txt").text


def test_a_browser_gives_the_token_as_password_and_only_pages_of_this_address_may_use_it(viewer):
    asked = httpx.get(viewer.base_url)
    assert asked.status_code == 401 and asked.headers["www-authenticate"].startswith("Basic")
    for wrong in ("sesamf", ""):
        assert httpx.get(viewer.base_url, auth=("anyone", wrong)).status_code == 401
    assert httpx.get(viewer.base_url, headers={"Authorization": "Basic ***"}).status_code == 401
    assert httpx.get(viewer.base_url, headers={"Authorization": "Bearer sesame"}).status_code == 200
    assert viewer.get("/", headers={"Origin": "https://evil.example"}).status_code == 401


def test_a_folder_without_a_build_is_refused_by_name(tmp_path):
    ohif = {"folder": tmp_path, "port": 0}
    settings = configuration.read_settings(None, [], tmp_path / "node", ohif=ohif, http={"port": 0}, dicom={"port": 0})
    with pytest.raises(UsageError, match=r"no build of OHIF.*npm pack @ohif/app"):
        supervisor.prepare_node(settings)


@pytest.fixture
def lesion(tmp_path) -> tuple[list[Path], np.ndarray]:
    """A series of MR and a SEG on it, and the mask, (64, 64, 20)."""
    x, y, z = np.indices((SIDE, SIDE, SLICES))
    body = 400 * (((x - 32) / 26) ** 2 + ((y - 32) / 22) ** 2 < 1)
    ball = (x - 40) ** 2 + (y - 24) ** 2 + (3 * (z - 13)) ** 2 < 100
    affine = np.diag([-1.5, -1.5, 4.5, 1.0])
    image = Image((body + 300 * ball + x).astype(np.int16)[None], Geometry(ball.shape, affine), modality="MR")
    series_writing.write_series(image, SeriesNames("p", "study", "series"), tmp_path / "mr")
    series = file_formats.read(tmp_path / "mr")
    labels = (Label(0, "background"), Label(1, "lesion"))
    result_images.write_label_map(ball.astype(np.uint8), labels, series, tmp_path / "seg.dcm", algorithm="test")
    return [*sorted((tmp_path / "mr").iterdir()), tmp_path / "seg.dcm"], ball


@pytest.mark.whole
def test_ohif_shows_a_segmentation_on_the_slice_where_it_lies(lesion, tmp_path):
    build = Path(os.environ.get("HILUM_OHIF", ""))
    if not (build / "index.html").is_file():
        pytest.skip("HILUM_OHIF does not name a build of OHIF: run `npm pack @ohif/app` and unpack it")
    (files, mask), port = lesion, free_port()
    (tmp_path / "browser").mkdir()
    with served(tmp_path / "node", ohif={"folder": build, "port": port}) as web:
        web.store(*[file.read_bytes() for file in files])
        [study] = web.client.get("/dicomweb/studies").json()
        address = f"http://127.0.0.1:{port}/viewer?StudyInstanceUIDs={study['0020000D']['Value'][0]}"
        with (
            browser_running(tmp_path / "browser") as browser,
            browser.visited(address, said("Skip all"), size=(1000, 700), limit_s=120) as page,
        ):
            for button in ("Skip all", "Confirm and hide"):
                page.value(f"{named(button)}.click()")
            page.wait(f"!{said('Skip all')}", 30)
            page.value(f"{named('Segmentation')}.dispatchEvent(new MouseEvent('dblclick', {{bubbles: true}}))")
            page.wait(said("Yes"), 60)
            page.value(f"{named('Yes')}.click()")
            page.wait(f"!{said('Yes')}", 60)
            time.sleep(3)  # it then goes to the first slice with a segment
            found = {number: shown_mask(page, number) for number in (6, 12, 14, 16, 20)}
    for number, share in found.items():
        wanted = mask[:, :, number - 1].T
        assert np.abs(share - wanted).mean() < 0.01, (number, share.sum(), wanted.sum())


def said(words: str) -> str:
    """Whether the page says this."""
    return f"({named(words)} !== undefined)"


def named(words: str) -> str:
    """The innermost element with these words."""
    return (
        "[...document.querySelectorAll('button, span, div, p')]"
        f".filter(e => e.innerText && e.innerText.trim() === {json.dumps(words)}).at(-1)"
    )


def shown_mask(page, number: int) -> np.ndarray:
    """(64, 64) rows and columns: how much of each voxel is coloured on the slice with this instance number."""
    shown = "document.querySelector('[data-cy=\"viewport-overlay-bottom-right\"]')?.innerText"
    page.wait(f"/I:\\s*\\d/.test({shown})", 60)
    canvas = "document.querySelector('canvas.cornerstone-canvas').getBoundingClientRect()"
    left, top, width, height = page.value(f"(r => [r.left, r.top, r.width, r.height])({canvas})")
    for _ in range(2 * SLICES):
        now = int(re.search(r"I:\s*(\d+)", page.value(shown))[1])
        if now == number:
            break
        page.turn_wheel(left + width / 2, top + height / 2, 1 if now > number else -1)
        time.sleep(0.3)
    assert now == number
    time.sleep(1)  # the slice is shown after its number
    picture = page.picture().astype(int)
    size = min(width, height) / SIDE
    steps = size * (np.arange(SIDE + 1) - SIDE / 2)
    down, right = (np.round(middle + steps).astype(int) for middle in (top + height / 2, left + width / 2))
    coloured = np.ptp(picture, axis=2)[down[0] : down[-1], right[0] : right[-1]] > COLOURED
    rows = np.add.reduceat(coloured.astype(int), down[:-1] - down[0], axis=0)
    return np.add.reduceat(rows, right[:-1] - right[0], axis=1) / size**2
