"""The pages for people, in a browser without a graphics card: what a reader does, and what is written for it."""

from __future__ import annotations

import json
import os
import re
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path

import numpy as np
import pydicom
import pytest
from fastapi.testclient import TestClient
from sqlalchemy import delete, insert, update

import real_data
from browsers import Browser, Page, browser_running
from hilum.files import file_formats
from hilum.files.dicom import object_identity
from hilum.files.dicom.reading import seg_reading
from hilum.files.dicom.writing import series_writing
from hilum.files.dicom.writing.series_writing import SeriesNames
from hilum.service.model_facts import ModelFacts
from hilum.service.node_folder import MODELS, MONITOR
from hilum.service.objects import object_store
from hilum.service.records import audit_records, tables
from hilum.service.records.accounts import Accounts
from hilum.service.web import page_routes, server
from hilum.service.web.web_node import WebNode
from hilum.values import Geometry, Image
from service import followed
from service.small_node import LEVEL, SmallNode
from service.thresholds import threshold_model

ACCOUNT, PASSWORD = "administrator", "correct horse battery"
HOSTILE = "<script>alert(1)</script>"
SPACING, SHAPE = (2.0, 2.0, 5.0), (48, 40, 16)
AXIAL = "document.querySelector('canvas[data-pane=\"axial\"]')"
DRAWN = f"!!{AXIAL}?.dataset.drawn"
PEERS = [{"name": name, "ae_title": name, "host": "127.0.0.1", "port": 1} for name in ("test", "pacs", "silent")]


@dataclass
class ReadingRoom:
    """A node with a study of CT and an earlier one with thinner slices, whose results are known, and a browser."""

    node: SmallNode
    browser: Browser
    url: str
    study: str
    earlier: str

    @contextmanager
    def open(self, path: str, until: str, size: tuple[int, int] = (1280, 860)) -> Iterator[Page]:
        """A page, once an expression is true of it; whoever has not logged in does so, by keyboard."""
        login = "document.activeElement?.autocomplete === 'username'"
        with self.browser.visited(self.url + path, f"({until}) || {login}", size=size, limit_s=30) as page:
            if page.value(login):
                page.write(ACCOUNT)
                page.press("Tab")
                page.write(PASSWORD)
                page.press("Enter")
                page.wait(until, 30)
                page.browser._events.clear()  # the question who is here was answered with 401
            yield page


@pytest.fixture(scope="module")
def room(tmp_path_factory) -> Iterator[ReadingRoom]:
    folder = tmp_path_factory.mktemp("reading")
    node = SmallNode(
        folder / "node", threshold_model(folder / "model", LEVEL), answers=["seg"], http={"port": 0}, peers=PEERS
    )
    x, y, z = np.indices(SHAPE)
    ball = 200 * ((x - 15) ** 2 + (y - 20) ** 2 + 6 * (z - 8) ** 2 < 60) + x // 4
    studies = list[str]()
    for name, gap in (("earlier", SPACING[2] / 2), ("now", SPACING[2])):
        affine = np.diag([-SPACING[0], -SPACING[1], gap, 1.0])
        image = Image(ball[None].astype(np.int16), Geometry(SHAPE, affine), modality="CT")
        series_writing.write_series(
            image, SeriesNames(HOSTILE, f"{name} {HOSTILE}", f"series {HOSTILE}"), folder / name
        )
        files = sorted((folder / name).iterdir())
        node.receive(*files)
        node.work()
        studies.append(object_identity.read_identity(files[0]).study)
    with browsing(node, folder) as (browser, url):
        yield ReadingRoom(node, browser, url, studies[1], studies[0])


@contextmanager
def browsing(node: SmallNode, folder: Path) -> Iterator[tuple[Browser, str]]:
    """A browser, and the address at which a node's web process answers it."""
    facts = [asdict(ModelFacts(name, "h", "CT", labels={"bright": 1})) for name in node.settings.models]
    stated = {"schema": "hilum.models", "version": 1, "rows": facts}
    (node.settings.folder / MODELS).write_text(json.dumps(stated))
    Accounts(node.database).first(PASSWORD)
    stop, bound, ports = threading.Event(), threading.Event(), list[int]()

    def tell(port: int) -> None:
        ports.append(port)
        bound.set()

    serving = threading.Thread(target=server.run_web, args=(node.settings, stop, tell))
    serving.start()
    try:
        assert bound.wait(60)
        (folder / "browser").mkdir()
        with browser_running(folder / "browser", "--disable-3d-apis") as browser:
            yield browser, f"http://127.0.0.1:{ports[0]}"
    finally:
        stop.set()
        serving.join(60)


def pressed_voxels(page: Page, ends: list[tuple[int, int]], size: float, number: int) -> np.ndarray:
    """The voxels of an axial slice that a round brush of so many mm touches between two points of the screen."""
    place = (
        f"(e => [...['left', 'top'].map(s => e.getBoundingClientRect()[s]), e.clientWidth, e.clientHeight])({AXIAL})"
    )
    left, top, width, height = page.value(place)
    scale = min(width / (SHAPE[0] * SPACING[0]), height / (SHAPE[1] * SPACING[1]))
    middle = np.array([left + width / 2, top + height / 2])
    start, end = ((np.array(one) - middle) / scale + np.array(SHAPE[:2]) * SPACING[:2] / 2 for one in ends)
    # Rows and columns of the array run to the patient's left and back, as the screen does.
    centres = (np.stack(np.indices(SHAPE[:2]), -1) + 0.5) * SPACING[:2]
    way = end - start
    share = np.clip(((centres - start) @ way) / (way @ way), 0, 1)
    near = np.linalg.norm(centres - start - share[..., None] * way, axis=-1) <= size / 2
    disc = np.zeros(SHAPE, bool)
    disc[:, :, number] = near
    return disc


def test_a_reader_opens_scrolls_corrects_and_accepts_by_keyboard_but_for_the_stroke(room):
    rows = "table[aria-label=Worklist] tr[data-study][data-priority=routine][data-state=done]"
    with room.open("/", f"document.querySelectorAll('{rows}').length === 2") as page:
        page.press("ArrowDown")
        assert page.value("document.activeElement.dataset.study") == room.study
        page.press("Enter")
        page.wait(DRAWN, 30)
        assert page.value(f"{AXIAL}.dataset.slice") == "7"  # amid the slices, seen from the head
        page.press("PageUp")
        page.press("ArrowDown")
        page.press("ArrowDown")
        page.wait(f"{AXIAL}.dataset.slice === '13'", 5)  # the array's slices run to the head
        page.press("b")
        page.press("]")
        page.wait("document.querySelector('button[title=\"Brush (b)\"]').matches('[aria-pressed=true]')", 5)
        box = page.value(f"(r => [r.left, r.top, r.width, r.height])({AXIAL}.getBoundingClientRect())")
        ends = [(round(box[0] + x * box[2]), round(box[1] + y * box[3])) for x, y in ((0.45, 0.4), (0.6, 0.55))]
        wanted = pressed_voxels(page, ends, 12.0, 13)
        page.drag(*ends)
        page.wait("document.querySelector('.status').textContent === '1 stroke, draft kept on the node'", 2)
        page.browser._ask("Page.reload", page.tab)
        page.wait("document.body.innerText.includes('Your draft of 1 stroke is still here.')", 30)
        [stroke] = room.node.rows(tables.DRAFTS)
        assert stroke.account == ACCOUNT
        page.press("c")
        page.press("s")
        page.wait("document.body.innerText.includes('Saved as correction 1.')", 30)
        page.press("a")
        page.wait("document.body.innerText.includes('Accepted. Next study')", 10)
        page.browser._ask("Page.navigate", page.tab, url=room.url)
        row = f"document.querySelector('tr[data-study=\"{room.study}\"]')"
        page.wait(f"{row}?.lastElementChild.innerText === 'accepted'", 30)
        assert "corrected by a person" in page.value(f"{row}.innerText")
        assert page.complaints == []
    [made] = room.node.rows(tables.CORRECTIONS)
    series = file_formats.read(room.node.settings.folder.parent / "now")
    seg = seg_reading.read_segmentation(
        room.node.settings.folder / "results" / made.correction / "answer.dcm", series.geometry
    )
    bright = series.data[0] > LEVEL
    np.testing.assert_array_equal(seg.data[0] != 0, bright | wanted)
    assert [row.verdict for row in room.node.rows(tables.FEEDBACK)] == ["corrected", "accepted"]


# The patient's axes (left, back, feet as 0, 1, 2) along which columns, rows and slices of a series run.
DIRECTIONS = {"axial": (0, 1, 2), "coronal": (0, 2, 1), "sagittal": (1, 2, 0), "oblique": (0, 1, 2)}
SIZES = (20, 24, 6)  # columns, rows, slices


def test_slices_are_counted_in_their_own_plane_whatever_the_direction_of_the_series(room, tmp_path):
    turned = np.array([[1.0, 0, 0], [0, 0.8, -0.6], [0, 0.6, 0.8]])
    for name, directions in DIRECTIONS.items():
        affine, values = np.eye(4), np.random.default_rng(0).normal(500, 50, (1, *SIZES)).astype(np.int16)
        affine[:3, :3] = -np.eye(3)[:, directions] @ np.diag([1, 1, 5])
        affine[:3, :3] = turned @ affine[:3, :3] if name == "oblique" else affine[:3, :3]
        image = Image(values, Geometry(SIZES, affine), modality="MR")
        series_writing.write_series(image, SeriesNames("C", "directions", name), tmp_path / name)
        for path in (tmp_path / name).iterdir():
            dataset = pydicom.dcmread(path)  # its window shows all white, but for the series that lies askew
            dataset.WindowCenter, dataset.WindowWidth = (500, 400) if name == "oblique" else (50, 20)
            dataset.save_as(path)
        room.node.receive(*(tmp_path / name).iterdir())
    room.node.work()
    window = "document.querySelector('select[aria-label=Window]')"
    counters = "[...document.querySelectorAll('#panes .slide output')].map(one => one.textContent)"
    with room.open(f"/study/{object_identity.read_identity(path).study}", DRAWN) as page:
        for name, directions in DIRECTIONS.items():
            option = (
                f"[...document.querySelectorAll('select[aria-label=Series] option')].find(o => /{name}/.test(o.text))"
            )
            page.value(f"(o => {{ o.selected = true; o.parentNode.dispatchEvent(new Event('change')); }})({option})")
            count = dict(zip(directions, SIZES, strict=True))
            wanted = {f"{plane} {count[axis]}" for axis, plane in enumerate(("sagittal", "coronal", "axial"))}
            shown = f"{counters}.map(t => t.replace(/,.* of/, '')).sort().join()"
            page.wait(f"{shown} === {json.dumps(','.join(sorted(wanted)))} && {DRAWN}", 20)
            # The slice that is shown is one of them.
            assert all(1 <= int(t.split()[2]) <= int(t.split()[4]) for t in page.value(counters)), page.value(counters)
            said = "The header's window shows 100 % of the image as black or white alone" in page.value(
                "document.querySelector('aside').textContent"
            )
            assert (page.value(f"{window}.value"), said) == (
                ("header", False) if name == "oblique" else ("automatic", True)
            )
        page.value(f"{window}.value = 'all values'; {window}.dispatchEvent(new Event('change'))")
        middle = (int(values.max()) + int(values.min())) / 2
        page.wait(f"document.querySelector('input[aria-label=\"Window centre\"]').value === '{middle:g}'", 5)
        assert "For research use only" in page.value("document.querySelector('.bar').textContent")
        assert page.complaints == []


def test_an_administrator_lifts_a_rejection_where_the_study_says_that_images_are_withheld(room, tmp_path):
    image = Image(np.zeros((1, 8, 8, 4), np.int16), Geometry((8, 8, 4), np.eye(4)), modality="MR")
    series_writing.write_series(image, SeriesNames("R", "rejected", "one"), tmp_path / "rejected")
    room.node.receive(*(tmp_path / "rejected").iterdir())
    room.node.work()
    uid = object_identity.read_identity(next((tmp_path / "rejected").iterdir())).study
    [row] = [one for one in room.node.rows(tables.STUDIES) if one.uid == uid]
    with room.node.database.write() as connection:
        stated = {"uid": "1.2", "note": "1.3", "reason": "113037 Rejected for Patient Safety", "since": 0.0}
        connection.execute(insert(tables.REJECTIONS).values(study=row.study, is_sent_again=True, **stated))
    with room.open(f"/study/{uid}", DRAWN) as page:
        lift = "[...document.querySelectorAll('aside .notice button')].find(one => /Lift/.test(one.textContent))"
        assert "Rejected for Patient Safety) came again" in page.value("document.querySelector('aside').textContent")
        page.value(f"{lift}.click()")
        page.wait(f"!{lift}", 10)
        assert (room.node.rows(tables.REJECTIONS), page.complaints) == ([], [])


def test_an_earlier_study_scrolls_as_many_mm(room):
    def earlier(field: str) -> str:
        return f"document.querySelector('section.earlier canvas[data-pane=axial]')?.dataset.{field}"

    with room.open(f"/study/{room.study}", DRAWN) as page:
        chosen = "s => { s.value = s.options[1].value; s.dispatchEvent(new Event('change')); }"
        page.value(f"({chosen})(document.querySelector('select[aria-label=\"Earlier study\"]'))")
        page.wait(f"!!{earlier('drawn')}", 30)
        assert (page.value(f"{AXIAL}.dataset.slice"), page.value(earlier("slice"))) == ("7", "7")
        page.press("ArrowUp")
        page.press("ArrowUp")
        page.wait(f"{earlier('slice')} === '11' && {AXIAL}.dataset.slice === '9'", 5)
        assert page.complaints == []


@pytest.mark.whole
def test_a_study_that_was_compared_opens_beside_the_earlier_one_with_what_changed(tmp_path):
    path = threshold_model(tmp_path / "model", LEVEL)
    rules = [{"name": "balls", "model": path.name, "prior": {"least_days": 50}}]
    node = SmallNode(tmp_path / "node", path, rules=rules, http={"port": 0})
    before, now = followed.study(tmp_path, "20240101", 6.0), followed.study(tmp_path, "20240301", 5.0, shift=(1, 0))
    for files in (before, now):
        node.receive(*files)
        node.work()
    study, table = object_identity.read_identity(now[0]).study, "document.querySelector('section.change')"
    beside = "document.querySelector('section.earlier canvas[data-pane=axial]')?.dataset"
    with browsing(node, tmp_path) as (browser, url):
        page_until = ReadingRoom(node, browser, url, study, "").open(f"/study/{study}", DRAWN, (1400, 760))
        with page_until as page:
            page.wait(f"!!{table} && !!{beside}?.drawn", 30)
            assert "Change since 2024-01-01 (60 days)" in page.value(f"{table}.textContent")
            assert "bright" in page.value(f"{table}.textContent")
            assert page.value(f"{AXIAL}.dataset.slice") == page.value(f"{beside}.slice")
            page.press("ArrowUp")
            page.wait(f"{AXIAL}.dataset.slice === {beside}.slice", 5)
            assert page.complaints == []
    node.store.close()
    node.database.close()


def test_a_sampled_study_is_read_before_its_mask_is_shown(room, tmp_path):
    series_writing.write_series(
        Image(np.zeros((1, 8, 8, 4), np.int16), Geometry((8, 8, 4), np.eye(4)), modality="CT"),
        SeriesNames("B", "blind", "one"),
        tmp_path / "blind",
    )
    room.node.receive(*(tmp_path / "blind").iterdir())
    room.node.work()
    job = room.node.rows(tables.JOBS)[-1].job
    with room.node.database.write() as connection:
        stated = {"inclusion": 0.5, "sampled_at": 0.0, "week": "2026-W48", "state": "waiting"}
        connection.execute(insert(tables.BLIND_READS).values(job=job, **stated))
    with room.open("/blind", "!!document.querySelector('table a')") as page:
        page.value("document.querySelector('table a').click()")
        page.wait(f"{DRAWN} && !!document.querySelector('section[aria-label=\"Blind read\"] select')", 30)
        assert "threshold" not in page.value("document.querySelector('aside').textContent")
        page.value("document.querySelector('section[aria-label=\"Blind read\"] select').value = '0'")
        page.value("document.querySelector('section[aria-label=\"Blind read\"] button').click()")
        page.wait("document.querySelector('aside h2')?.textContent.includes('threshold')", 30)
        assert page.complaints == []
    kept = [(row.label, row.value) for row in room.node.rows(tables.OUTCOME_ROWS) if row.source == "blind"]
    assert kept == [("bright", 0.0)]


def test_scripts_in_names_stay_text(room):
    with room.open(f"/study/{room.study}", DRAWN) as page:
        assert HOSTILE in page.value("document.querySelector('h1').textContent")
        assert f"series {HOSTILE}" in page.value("document.querySelector('select[aria-label=Series]').textContent")
        assert page.value("document.querySelectorAll('script:not([src])').length") == 0
        assert page.complaints == []


def test_pages_fit_a_telephone_in_both_themes(room):
    with room.open(f"/study/{room.study}", DRAWN, size=(390, 844)) as page:
        grounds = list[float]()
        for _ in range(2):
            assert page.value("document.documentElement.scrollWidth") <= 390
            grounds.append(page.picture()[3, 3].mean())
            page.value("document.querySelector('button[title=\"Dark or light\"]').click()")
        assert grounds[0] < 60 and grounds[1] > 200


PICTURES = {"radiograph": "highdicom_dx_image.dcm", "clip": "pydicom_examples_ybr_color.dcm"}


@pytest.mark.parametrize("kind", PICTURES)
def test_a_picture_is_one_pane_and_keys_step_through_a_clip(room, kind):
    path = real_data.SHIPPED / "dicom" / "files" / PICTURES[kind]
    room.node.receive(path)
    room.node.work()
    canvas = "document.querySelector('canvas[data-pane=picture]')"
    with room.open(f"/study/{object_identity.read_identity(path).study}", f"!!{canvas}?.dataset.drawn") as page:
        assert page.value("document.querySelectorAll('canvas[data-pane]').length") == 1
        assert page.value(f"{canvas}.dataset.slice") == "0"
        page.press("ArrowRight")
        if kind == "clip":
            page.wait(f"{canvas}.dataset.slice === '1'", 5)
        assert page.complaints == []


def test_a_picture_is_as_bright_as_its_table_asks_until_a_window_is_set(room, tmp_path):
    pixels = np.repeat(np.array([0, 1000, 4095], np.uint16), 20)[None].repeat(60, axis=0)
    dataset = pydicom.dcmread(real_data.SHIPPED / "dicom" / "files" / "highdicom_dx_image.dcm")
    dataset.remove_private_tags()
    dataset.StudyInstanceUID, dataset.SeriesInstanceUID = pydicom.uid.generate_uid(), pydicom.uid.generate_uid()
    dataset.SOPInstanceUID = dataset.file_meta.MediaStorageSOPInstanceUID = pydicom.uid.generate_uid()
    dataset.Rows, dataset.Columns, dataset.PixelData = *pixels.shape, pixels.tobytes()
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit = 16, 12, 11
    dataset.PhotometricInterpretation, dataset.PresentationLUTShape = "MONOCHROME2", "IDENTITY"
    for keyword in ("WindowCenter", "WindowWidth"):
        dataset.pop(keyword, None)
    lut = pydicom.Dataset()
    lut.LUTDescriptor = [4096, 0, 8]
    lut.add_new("LUTData", "US", [255 - min(255, n // 8) for n in range(4096)])
    dataset.VOILUTSequence = [lut]
    dataset.save_as(tmp_path / "a.dcm")
    room.node.receive(tmp_path / "a.dcm")
    room.node.work()
    canvas = "document.querySelector('canvas[data-pane=picture]')"
    window = "document.querySelector('select[aria-label=Window]')"
    sides = "['left', 'top', 'width', 'height'].map(side => box[side])"

    def levels(page: Page) -> list[int]:
        """The greys of the three bands."""
        left, top, width, height = page.value(f"(box => {sides})({canvas}.getBoundingClientRect())")
        row = page.picture()[round(top + height / 2 - 30), :, 0]
        return [int(row[round(left + width / 2 + min(width, height) * shift)]) for shift in (-1 / 3, -0.04, 1 / 3)]

    def choose(page: Page, name: str) -> None:
        """Choose a window by its name, and wait until it is shown."""
        drawn = int(page.value(f"{canvas}.dataset.drawn"))
        page.value(f"{window}.value = '{name}'; {window}.dispatchEvent(new Event('change'))")
        page.wait(f"Number({canvas}.dataset.drawn) > {drawn}", 5)

    with room.open(f"/study/{dataset.StudyInstanceUID}", f"!!{canvas}?.dataset.drawn") as page:
        assert levels(page) == [255, 130, 0]
        assert page.value(f"{window}.selectedOptions[0].text") == "header (curve)"
        choose(page, "all values")
        assert levels(page) == [255, 193, 0]  # by a line that falls, as the table does
        choose(page, "header")
        assert levels(page) == [255, 130, 0]
        assert page.complaints == []


def test_an_incident_is_stated_and_settled_on_its_page(room):
    form = "document.querySelector('main.incidents form')"
    with room.open("/incidents", f"!!{form}") as page:

        def state(name: str, words: str) -> None:
            label = f"[...{form}.querySelectorAll('label')].find(one => one.textContent === '{name}')"
            assert page.value(f"{label}.querySelector('input').value = '{words}'") == words

        state("What happened", f"A fracture was missed. {HOSTILE}")
        page.value(f"{form}.querySelector('button').click()")
        page.wait("document.querySelector('td .pill')?.textContent === 'open'", 10)
        page.value("document.querySelector('td button').click()")
        for name in ("Cause", "Action", "Check of the action"):
            state(name, "A cast.")
        page.value(f"{form}.querySelector('button').click()")
        page.wait("document.querySelector('td .pill')?.textContent === 'settled'", 10)
        assert HOSTILE in page.value("document.querySelector('tbody').textContent")
        assert page.complaints == []


def test_the_node_page_tells_of_each_peer_and_explains_states(room):
    [answer] = room.node.rows(tables.ANSWERS)[:1]
    late = {
        "job": answer.job,
        "name": answer.name,
        "peer": "pacs",
        "state": "waiting",
        "next_at": 0.0,
        "created_at": 0.0,
    }
    with room.node.database.write() as connection:
        connection.execute(insert(tables.DELIVERIES).values(reason="the peer refuses the association", **late))
    with room.open("/node", "document.body.innerText.includes('peer silent')", size=(1280, 1400)) as page:
        rows = "[...document.querySelectorAll('table[aria-label=Health] tr')]"
        cells = page.value(f"{rows}.map(row => [...row.children].map(one => one.textContent))")
        peers = {row[0]: row[1:] for row in cells if row[0].startswith("peer")}
        assert re.fullmatch(r"\d{4}-\d\d-\d\d [\d:]{8}", peers["peer test"][1])
        assert peers["peer pacs"] == ["does not take all", "–", "1", "the peer refuses the association"]
        assert peers["peer silent"] == ["not met yet", "–", "0", "–"]
        assert "done\nno model has anything left to do" in page.value("document.body.innerText")
        assert all("/health/ready" in one for one in page.complaints)  # 503, as no keeper runs here


def test_the_audit_page_states_events_in_words_and_filters_them_by_study_time_and_person(room):
    audit_records.record_settings(room.node.database, {"dicom": {"port": 1}})
    audit_records.record_settings(room.node.database, {"dicom": {"port": 2}})
    audit_records.seal_events(room.node.database, "node")
    body = "document.querySelector('table.audit tbody')"
    with room.open("/audit", f"{body}?.children.length > 5") as page:

        def narrow(name: str, value: str, until: str) -> None:
            field = f"document.querySelector('input[name={name}]')"
            page.value(f"{field}.value = {json.dumps(value)}; {field}.dispatchEvent(new Event('change'))")
            page.wait(until, 10)

        text = page.value(f"{body}.textContent")
        assert "Port was 1 and is 2." in text and not re.search(r'[{}"]', text)
        count = "(r => (r.selectNodeContents(one), r.getClientRects().length))(document.createRange())"
        assert set(page.value(f"[...document.querySelectorAll('td.short')].map(one => {count})")) == {1}  # of lines
        narrow("study", room.study, f"![...{body}.children].some(one => /Port was/.test(one.textContent))")
        assert page.value(f"{body}.children.length") > 0
        narrow("account", "nobody", f"{body}.children.length === 0")
        narrow("account", "", f"{body}.children.length > 0")
        narrow("until", "2000-01-01T00:00", f"{body}.children.length === 0")
        assert page.complaints == []


def test_a_browser_runs_nothing_but_the_nodes_own_modules(tmp_path):
    node = SmallNode(tmp_path / "node")
    client = TestClient(
        server.web_app(WebNode(node.settings, node.database, node.store)), base_url="http://127.0.0.1:8180"
    )
    for path in ("/", "/login", "/node", "/audit", "/blind", "/monitor", "/incidents", "/study/1.2"):
        answer = client.get(path)
        policy = answer.headers["content-security-policy"]
        assert answer.headers["content-type"].startswith("text/html")
        assert "default-src 'none'" in policy and "unsafe" not in policy
        assert "frame-ancestors 'none'" in policy
    named = set[str]()
    for name, content in page_routes.page_files().items():
        answer = client.get(f"/static/{name}")
        assert (answer.status_code, answer.content) == (200, content)
        text = content.decode()
        named |= set(re.findall(r'(?:from "\./|(?:src|href)="/static/)([\w.]+)"', text))
        assert not re.search(r"\bon\w+=\"|innerHTML|outerHTML|insertAdjacentHTML|document\.write|\beval\(", text), name
        assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", text), name
    assert named <= page_routes.page_files().keys()
    for stray in ("..%2fpages.py", "%2e%2e/pages.py", "nothing.js"):
        assert client.get(f"/static/{stray}").status_code == 404


def test_the_page_on_monitoring_says_how_many_cases_a_baseline_lacks(room):
    with room.open("/monitor", "document.body.innerText.includes('not watched:')") as page:
        text = page.value("document.body.innerText")
        answered = len([job for job in room.node.rows(tables.JOBS) if job.outcome is not None])
        assert "no alert stands" in text and f"not watched: {answered} of 300 cases" in text, text


def month(number: int, metric: str, value: float, source: str) -> dict[str, object]:
    ends = {"value": value, "low": value - 0.1, "high": value + 0.1, "n": 40, "scope": "", "label": "nodule"}
    return {"from": f"2026-0{number}-01", "to": f"2026-0{number + 1}-01", "metric": metric, "source": source, **ends}


def test_the_page_on_monitoring_has_a_row_for_each_bound_and_draws_figures_with_bounds_and_changes(room):
    [(name, version), *_] = {
        (job.model, job.model_hash) for job in room.node.rows(tables.JOBS) if job.outcome is not None
    }
    bound = {"bound": "sensitivity of nodule", "at_least": 0.8, "state": "held", "because": "0.9", "reported": "0.5"}
    figures = [month(n, "sensitivity", 0.9, source) for n in (3, 4, 5) for source in ("audited", "reported")]
    figures += [month(3, "npv", 0.9, "audited"), month(5, "auroc", 0.9, "estimated")]
    row = {
        "version": version,
        "performance": figures,
        "bounds": [bound],
        "changes": {"2026-04-10T08:00:00": "software v6"},
    }
    own = {"model": name, "model_hash": version, "cases": 300, "first_at": 0.0, "last_at": 1.0, "frozen_at": 1.0}
    with room.node.database.write() as connection:
        connection.execute(insert(tables.BASELINES).values(**own, frozen_by="somebody"))
    seen = room.node.settings.folder / MONITOR
    seen.write_text(json.dumps({"schema": "hilum.node_monitor", "version": 1, "at": 1.0, "rows": [row]}))
    try:
        with room.open("/monitor", "!!document.querySelector('table[aria-label=Bounds]')") as page:
            text = page.value("document.querySelector('main').innerText")
            charts = page.value("[...document.querySelectorAll('figure svg')].map(e => [e.getAttribute('aria-label'), "
                               "e.querySelectorAll('circle').length, e.textContent])")  # fmt: skip
            dashes = page.value(
                "[...document.querySelectorAll('figure line')].map(e => e.getAttribute('stroke-dasharray'))"
            )
            assert page.complaints == []
    finally:
        seen.unlink()
        with room.node.database.write() as connection:
            connection.execute(delete(tables.BASELINES))
    assert "no alert; reported, not audited: sensitivity of nodule 0.5, bound 0.8" in text and "held" in text, text
    [(title, dots, words)] = charts  # a single window is no course
    assert (title, dots) == ("sensitivity of nodule over time", 6) and "software v6" in words
    assert dashes.count("6 4") == 1 and dashes.count("2 3") == 1


@pytest.mark.whole
def test_axe_finds_nothing_serious(room):
    axe = Path(os.environ.get("HILUM_AXE", ""))
    if not axe.is_file():
        pytest.skip("HILUM_AXE does not name axe.min.js: run `npm install axe-core`")
    pages = {"/": "!!document.querySelector('tr[data-study]')", f"/study/{room.study}": DRAWN}
    others = ("/node", "/audit", "/blind", "/monitor", "/incidents")
    pages |= dict.fromkeys(others, "!!document.querySelector('table, .empty')")
    for path, until in pages.items():
        with room.open(path, until) as page:
            for _ in range(2):
                page.value(axe.read_text())
                run = "axe.run(document, {resultTypes: ['violations']}).then(r => JSON.stringify(r.violations))"
                given = {"expression": run, "awaitPromise": True, "returnByValue": True}
                found = json.loads(page.browser._ask("Runtime.evaluate", page.tab, **given)["result"]["value"])
                assert [one["id"] for one in found if one["impact"] in ("serious", "critical")] == [], path
                page.value("document.querySelector('button[title=\"Dark or light\"]').click()")


def test_a_study_without_an_answer_says_so_and_why_in_the_worklist_and_on_its_page(room):
    [job] = [row for row in room.node.rows(tables.JOBS) if row.study == object_store.uid_key(room.earlier)]
    row = f"document.querySelector('tr[data-study=\"{room.earlier}\"]')"
    for outcome in ("abstained", "refused", "failed"):
        values = {"outcome": outcome, "reason": "its spacing is unlike"}
        with room.node.database.write() as connection:
            connection.execute(update(tables.JOBS).where(tables.JOBS.c.job == job.job).values(values))
        with room.open("/", f"!!{row}") as page:
            pill = page.value(f"(e => [e.textContent, e.className])({row}.lastElementChild.firstElementChild)")
            assert pill == [outcome, f"pill {outcome}"]
            said = page.value(f"{row}.querySelector('[data-column=finding]').innerText")
            assert said == f"{outcome}: its spacing is unlike"
    with room.open(f"/study/{room.earlier}", DRAWN) as page:
        said = page.value("document.querySelector('.result').innerText")
        assert "Failed: its spacing is unlike" in said
        assert "not checked" not in said
    study = update(tables.STUDIES).where(tables.STUDIES.c.study == job.study)
    with room.node.database.write() as connection:
        connection.execute(update(tables.JOBS).where(tables.JOBS.c.job == job.job).values(state="cancelled"))
        connection.execute(study.values(outcome="refused", reason="no rule takes it"))
    with room.open(f"/study/{room.earlier}", DRAWN) as page:
        said = page.value("document.body.innerText")
        assert "No model has looked at this study." in said and "refused: no rule takes it" in said
    values = {name: getattr(job, name) for name in ("state", "outcome", "reason")}
    with room.node.database.write() as connection:
        connection.execute(update(tables.JOBS).where(tables.JOBS.c.job == job.job).values(values))
        connection.execute(study.values(outcome=job.outcome, reason=job.reason))
    with room.open(f"/study/{room.earlier}", DRAWN) as page:
        said = page.value("document.querySelector('.result').innerText")
        assert "not checked against the images that trained the model: no gate" in said
