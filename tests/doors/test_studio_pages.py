"""Every page of the studio in a real browser: names, landmarks, contrast, room at 200 % zoom, and how soon it shows."""

from __future__ import annotations

import csv
import json
import shutil
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest

import browsers
import trained
from browsers import Browser, Page
from hilum.files.storage.file_lock import Holder
from hilum.jobs import CommandJob, job_record
from studio_pages import click, control, fill, keep_picture, set_control, studio

# Roles of the accessibility tree that people work.
CONTROLS = {"button", "link", "textbox", "searchbox", "checkbox", "combobox", "ComboBoxSelect", "spinbutton", "slider"}
CONTROLS |= {"DisclosureTriangle", "listbox", "radio", "switch", "menuitem"}
WIDE, NARROW = (1280, 900), (640, 450)
# What is on a page, wherever it has been scrolled to: visible words that have too little contrast with their ground
# (WCAG 2.2, 1.4.3), by the colours that the browser has computed.
FAINT = """(() => {
  const parts = (text) => {
    const all = text.match(/[\\d.]+/g).map(Number);
    return all.length < 4 ? [...all.slice(0, 3), 1] : all;
  };
  const over = (top, below) => [0, 1, 2].map((n) => top[n] * top[3] + below[n] * (1 - top[3])).concat(1);
  const ground = (one) => {
    const layers = [];
    for (let at = one; at; at = at.parentElement) layers.push(parts(getComputedStyle(at).backgroundColor));
    return layers.reduceRight((below, top) => over(top, below), [255, 255, 255, 1]);
  };
  const light = (colour) => [0.2126, 0.7152, 0.0722].reduce((sum, share, n) => {
    const one = colour[n] / 255;
    return sum + share * (one <= 0.04045 ? one / 12.92 : ((one + 0.055) / 1.055) ** 2.4);
  }, 0);
  const faint = [];
  let seen = 0, least = 21;
  const judge = (element, colour, words) => {
    const style = getComputedStyle(element), box = element.getBoundingClientRect();
    const isSeen = element.checkVisibility({ visibilityProperty: true }) && box.width;
    if (!words.trim() || !isSeen || element.closest(":disabled")) return;
    let opacity = 1;
    for (let at = element; at; at = at.parentElement) opacity *= Number(getComputedStyle(at).opacity);
    const below = ground(element), top = parts(colour);
    const [a, b] = [light(over([...top.slice(0, 3), top[3] * opacity], below)), light(below)].sort((x, y) => y - x);
    const contrast = (a + 0.05) / (b + 0.05), size = parseFloat(style.fontSize);
    const asked = size >= 24 || (Number(style.fontWeight) >= 700 && size >= 18.66) ? 3 : 4.5;
    seen += 1;
    least = Math.min(least, contrast);
    if (contrast < asked) faint.push(`${words.trim().slice(0, 40)}: ${contrast.toFixed(2)}`);
  };
  const texts = document.createTreeWalker(document.body, NodeFilter.SHOW_TEXT);
  while (texts.nextNode()) {
    const element = texts.currentNode.parentElement, style = getComputedStyle(element);
    judge(element, element instanceof SVGElement ? style.fill : style.color, texts.currentNode.data);
  }
  for (const one of document.querySelectorAll("input:not([type=range], [type=checkbox]), textarea")) {
    judge(one, getComputedStyle(one).color, one.value);
    if (!one.value) judge(one, getComputedStyle(one, "::placeholder").color, one.placeholder ?? "");
  }
  for (const one of document.querySelectorAll(".chart path[style]")) { // lines need 3 to 1 (1.4.11)
    const [a, b] = [light(parts(getComputedStyle(one).stroke)), light(ground(one))].sort((x, y) => y - x);
    if ((a + 0.05) / (b + 0.05) < 3) faint.push(`line: ${((a + 0.05) / (b + 0.05)).toFixed(2)}`);
  }
  return { faint, seen, least };
})()"""
# Visible controls that lie outside the window, and in nothing that scrolls to them.
CUT = """[...document.querySelectorAll("a, button, input, select, textarea, summary, h1, h2, code")].filter((one) => {
  const box = one.getBoundingClientRect();
  if (!one.checkVisibility() || !box.width || (box.right <= innerWidth + 1 && box.left >= -1)) return false;
  for (let at = one.parentElement; at; at = at.parentElement)
    if (["auto", "scroll"].includes(getComputedStyle(at).overflowX)) return false;
  return true;
}).map((one) => one.outerHTML.slice(0, 120))"""


def resize(browser: Browser, page: Page, size: tuple[int, int]) -> None:
    screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
    browser._ask("Emulation.setDeviceMetricsOverride", page.tab, **screen)
    time.sleep(0.3)


def heard(browser: Browser, page: Page) -> list[tuple[str, str]]:
    """(role, name) of all that a screen reader comes to."""
    nodes = browser._ask("Accessibility.getFullAXTree", page.tab)["nodes"]
    shown = (one for one in nodes if not one.get("ignored"))
    return [(one["role"]["value"], one.get("name", {}).get("value", "")) for one in shown]


def measure(browser: Browser, page: Page, name: str) -> dict[str, Any]:
    """What of a page can be heard, read and reached, at 100 % and at 200 % zoom, in both themes; and what is wrong."""
    wide, problems, found = heard(browser, page), list[Any](), dict[str, Any]()
    controls = [one for one in wide if one[0] in CONTROLS]
    problems += [("has no name", role) for role, text in controls if not text.strip()]
    problems += [] if [role for role, _ in wide].count("main") == 1 else ["has not one main part"]
    problems += [] if "heading" in dict(wide) else ["has no heading"]
    found["controls"] = len(controls)
    for theme in ("dark", "light"):
        page.value(f"(document.documentElement.dataset.theme = '{theme}')")
        time.sleep(0.2)
        measured = page.value(FAINT)
        problems += [("is faint", theme, one) for one in measured["faint"]]
        found |= {f"words, {theme}": measured["seen"], f"least contrast, {theme}": round(measured["least"], 2)}
    page.value("(document.documentElement.dataset.theme = 'dark')")
    keep_picture(page, f"{name}_wide")
    resize(browser, page, NARROW)
    width = page.value("document.documentElement.scrollWidth")
    problems += [] if width <= NARROW[0] else [("is wider than the window", width)]
    problems += [("is cut off", one) for one in page.value(CUT)]
    problems += [("is lost at 200 %", one) for one in set(controls) - set(heard(browser, page))]
    keep_picture(page, f"{name}_narrow")
    resize(browser, page, WIDE)
    return found | ({"problems": problems} if problems else {})


def runs_in(work: Path, run: Path, count: int) -> None:
    """So many runs, as a list reads them: one that is whole, and the files by which the others are known."""
    shutil.copytree(run, work / "run-whole")
    for number in range(count - 1):
        folder = work / f"run-{number:02}"
        (folder / "evaluation").mkdir(parents=True)
        for name in ("plan.yaml", "split.csv", "evaluation/summary.json"):
            shutil.copy(run / name, folder / name)


def running_job(work: Path, name: str) -> CommandJob:
    """A training that this process stands for: it runs until the test has ended."""
    folder = work / "jobs" / name
    folder.mkdir(parents=True)
    fields = {"arguments": (), "shell": "hilum train data", "python": "", "door": "studio", "is_long": True}
    job = CommandJob(id=name, words="train", out="run-x", state="running", created=job_record.now(), **fields)
    job = replace(job, process=Holder.here(), began=job_record.now())
    job_record.write_job(folder, job)
    return job


def say_progress(work: Path, name: str, step: int) -> None:
    row = {"at": step, "what": "training", "done": step, "of": 500, "seconds_left": 90.0}
    row |= {"loss": 1 / step, "validation": 0.5 if step % 5 == 0 else None}
    with (work / "jobs" / name / "progress.jsonl").open("a", encoding="utf-8") as file:
        file.write(json.dumps(row) + "\n")


@contextmanager
def shown(tmp_path: Path) -> Iterator[tuple[str, Browser]]:
    (tmp_path / "browser").mkdir()
    with studio(tmp_path) as address, browsers.browser_running(tmp_path / "browser") as browser:
        yield address, browser


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_every_page_can_be_heard_read_and_zoomed_and_shows_at_once_what_happens(segmented, tmp_path):
    work, seen = tmp_path / "work", dict[str, Any]()
    data = trained.blobs(tmp_path / "data" / "blobs", 8)
    runs_in(work, segmented.out, 50)
    for name in ("0001-train", "0002-train"):
        running_job(work, name)
        for step in range(1, 12):
            say_progress(work, name, step)
    with shown(tmp_path) as (address, browser):
        with browser.visited(address, "document.querySelectorAll('nav a').length === 4", size=WIDE, limit_s=20) as page:
            page.wait("document.querySelectorAll('tr[data-run]').length === 50", 20)
            seen["50 runs listed, s"] = round(page.value("performance.now()") / 1000, 2)
            landmarks = {role for role, _ in heard(browser, page)}
            assert landmarks >= {"banner", "navigation", "main", "contentinfo"}
            assert page.value("document.querySelectorAll('[role=status], [role=alert]').length") > 5

            fill(page, "Folder", str(data))
            click(page, "Check")
            page.wait("document.querySelectorAll('tr[data-case]').length === 8", 60)
            set_control(page, "document.querySelector('tr[data-case] input:not([value=\"\"])')", "another name")
            changed = "document.querySelector('td.edited')"
            page.wait(f"{changed} !== null && getComputedStyle({changed}, '::after').content.includes('changed')", 5)
            seen["data"] = measure(browser, page, "data")

            click(page, "Plan")
            fill(page, "Device", "cpu")
            page.value("document.querySelector('#plan form').requestSubmit()")
            batch = "document.querySelector('[data-decision=\"training.batch\"]')"
            page.wait(f"{batch} !== null", 60)
            set_control(page, f"{batch}.querySelector('[data-control]')", "2")
            page.wait(f"{batch}.dataset.changed !== undefined && {batch}.textContent.includes('planned')", 20)
            set_control(page, f"{batch}.querySelector('[data-control]')", "-3")
            page.wait(f"{batch}.querySelector('[role=alert]').textContent !== ''", 20)
            described = f"{batch}.querySelector('[data-control]').getAttribute('aria-describedby').split(' ')"
            assert page.value(f"{described}.every(one => document.getElementById(one))")
            click(page, "All decisions")
            seen["plan"] = measure(browser, page, "plan")

            click(page, "Training")
            job = "document.querySelector('[data-job=\"0002-train\"]')"
            page.wait(f"{job}?.dataset.points === '11'", 10)
            dashes = "[...one.querySelectorAll('path[style]')].map(line => line.getAttribute('stroke-dasharray'))"
            lines = f"[...document.querySelectorAll('.chart')].map(one => new Set({dashes}).size)"
            assert page.value(lines) == [2, 2]  # told apart without colour
            offered = "[...document.querySelectorAll('[data-job=\"{}\"] button')].map(one => one.textContent)".format
            assert page.value(offered("0002-train")) == ["Pause", "Stop and keep the best"]
            assert page.value(offered("0001-train")) == ["Pause"]  # a later command works in its folder
            assert page.value(f"{control('Pause')}.focus() ?? document.activeElement.textContent") == "Pause"
            waits = []
            for step in range(12, 17):
                begun = time.monotonic()
                say_progress(work, "0002-train", step)
                while page.value(f"{job}.dataset.points") != str(step):
                    assert time.monotonic() < begun + 20
                waits.append(time.monotonic() - begun)
                time.sleep(0.13)
            assert page.value("document.activeElement.textContent") == "Pause"  # who waits there is not thrown out
            bar = f"{job}.querySelector('[role=progressbar]')"
            assert page.value(f"[{bar}.getAttribute('aria-valuenow'), {bar}.getAttribute('aria-valuemax')]") == [
                "16",
                "500",
            ]
            seen["an event of progress, s"] = [round(one, 2) for one in waits]
            seen["training"] = measure(browser, page, "training")

            click(page, "Runs")
            page.value("document.querySelector('tr[data-run=run-whole]').click()")
            page.wait(f"{control('Start: package')} !== undefined", 10)
            page.value("document.querySelectorAll('details').forEach(one => { one.open = true; })")
            seen["runs"] = measure(browser, page, "runs")
            assert [one for one in page.complaints if "exception" in one] == []
        image, mask = (str(data / kind / "case00.nii.gz") for kind in ("images", "labels"))
        viewer = f"{address.rsplit('/', 1)[0]}/study/{json.dumps([image, mask]).encode().hex()}"
        with browser.visited(viewer, "document.querySelector('.correcting') !== null", size=WIDE, limit_s=60) as page:
            page.wait("document.querySelector('.correcting button').disabled === false", 20)
            seen["viewer"] = measure(browser, page, "viewer")
    print(seen)  # noqa: T201
    pages = [one for one in seen.values() if isinstance(one, dict)]
    assert [one["problems"] for one in pages if "problems" in one] == []
    assert all(one["words, dark"] > 5 and one["controls"] > 3 for one in pages)


@pytest.mark.whole
@pytest.mark.timeout(600)
def test_a_change_of_the_plan_of_two_hundred_cases_is_shown(data, tmp_path):
    cohort = tmp_path / "data" / "hippocampus"
    names = sorted(one.name for one in (data / "hippocampus" / "images").iterdir())[:200]
    for kind in ("images", "labels"):
        (cohort / kind).mkdir(parents=True)
        for name in names:
            shutil.copy(data / "hippocampus" / kind / name, cohort / kind / name)
    ready = "document.querySelectorAll('nav a').length === 4"
    with shown(tmp_path) as (address, browser), browser.visited(address, ready, size=WIDE, limit_s=20) as page:
        fill(page, "Folder", str(cohort))
        click(page, "Plan")
        fill(page, "Device", "cpu")
        page.value("document.querySelector('#plan form').requestSubmit()")
        batch = "document.querySelector('[data-decision=\"training.batch\"]')"
        page.wait(f"{batch} !== null", 300)
        waits = []
        for value in ("2", "3", "5", "6", "7"):
            begun = time.monotonic()
            set_control(page, f"{batch}.querySelector('[data-control]')", value)
            while page.value(f"{batch}.dataset.value") != value:
                assert time.monotonic() < begun + 60
            waits.append(round(time.monotonic() - begun, 2))
        print({"a change of the plan of 200 cases, s": waits})  # noqa: T201


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_the_most_doubtful_cases_come_first_on_the_page_and_not_in_the_table_that_is_written(tmp_path):
    data = trained.blobs(tmp_path / "data" / "blobs", 8)
    doubted = ["case05", "case02"]
    lines = [f"{case},all,ranked by disagreement,0.{9 - n}" for n, case in enumerate(doubted)]
    (data / "relabel.csv").write_text("\n".join(["case,label,why,error", *lines, ""]))
    order = "[...document.querySelectorAll('tr[data-case]')].map(one => one.dataset.case)"
    ready = "document.querySelectorAll('nav a').length === 4"
    with shown(tmp_path) as (address, browser), browser.visited(address, ready, size=WIDE, limit_s=20) as page:
        fill(page, "Folder", str(data))
        click(page, "Check")
        page.wait("document.querySelectorAll('tr[data-case]').length === 8", 60)
        assert page.value(order) == [*doubted, *(f"case0{n}" for n in (0, 1, 3, 4, 6, 7))]
        assert page.value("document.querySelector('tr[data-case=case05]').cells[1].textContent") == "error 0.900"
        click(page, "Check again")
        page.wait("document.querySelectorAll('footer.jobs li[data-state=done]').length === 2", 60)
        [written] = (tmp_path / "work").glob("table-*/dataset.csv")
        assert [line.partition(",")[0] for line in written.read_text().splitlines()[1:]] == [
            f"case0{n}" for n in range(8)
        ]
        (data / "relabel.csv").unlink()
        fill(page, "Minutes to rank references by doubt", "0.3")
        page.value("document.querySelector('#data form').requestSubmit()")
        page.wait("document.querySelectorAll('footer.jobs li[data-state=done]').length === 3", 120)
        page.wait("document.querySelector('tr[data-case]')?.cells[1].textContent.includes('error')", 20)
        assert "--minutes 0.3" in page.value("document.querySelector('#data code[data-command=shell]').textContent")
        assert [one for one in page.complaints if "exception" in one] == []


@pytest.mark.whole
@pytest.mark.timeout(300)
def test_a_warning_is_accepted_by_a_button_in_the_table_alone_and_taken_back(tmp_path):
    data = trained.blobs(tmp_path / "data" / "blobs", 12)
    mask = data / "labels" / "case03.nii.gz"
    nibabel.save(nibabel.Nifti1Image(np.zeros((16, 16, 16), np.uint8), nibabel.load(mask).affine), mask)
    empty = "[...document.querySelectorAll('[aria-label=Findings] li')].find(one => one.textContent.includes('empty'))"
    ready = "document.querySelectorAll('nav a').length === 4"
    with shown(tmp_path) as (address, browser), browser.visited(address, ready, size=WIDE, limit_s=20) as page:
        fill(page, "Folder", str(data))
        click(page, "Check")
        page.wait(f"{empty}?.dataset.severity === 'warning'", 60)
        page.value(f"{empty}.querySelector('button').click()")
        page.wait(f"{empty}?.dataset.severity === 'note'", 60)
        assert "a person accepts it" in page.value(f"{empty}.textContent")
        assert page.value(f"{empty}.querySelector('button') === null")
        [written] = (tmp_path / "work").glob("table-*/dataset.csv")
        [first] = (tmp_path / "work").glob("check-blobs/dataset.csv")
        before, after = (list(csv.DictReader(one.open(newline=""))) for one in (first, written))
        [accepting] = {row["accepted"] for row in after} - {""}
        assert accepting.startswith("empty-mask@")
        assert after == [{**row, "accepted": accepting if row["case"] == "case03" else ""} for row in before]
        assert sorted(one.name for one in data.iterdir()) == ["images", "labels"]
        click(page, "Take back the last change")
        page.wait(f"{empty}?.dataset.severity === 'warning'", 60)
        assert [one for one in page.complaints if "exception" in one] == []
