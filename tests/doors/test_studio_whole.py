"""The whole way through the page in a real browser: from a folder with a wrong label to a package."""

from __future__ import annotations

import hashlib
import os
import shlex
import shutil
import subprocess
import sys
import time
from pathlib import Path

import nibabel
import numpy as np
import pytest

import browsers
from browsers import Page
from hilum.planning import plan_file
from studio_pages import click, control, drop, fill, keep_picture, set_control, studio

CASES = 40
MINUTES = os.environ.get("HILUM_TEST_MINUTES", "2")
LABELS = "1=anterior,2=posterior"
# Files of a package that state the seconds that its certificate measured.
OF_THE_CERTIFICATE = {"manifest.json", "docs/README.md", "configs/metadata.json", "hilum/certificate.json"}
CASE_ROWS = "document.querySelectorAll('table[aria-label=\"Cases\"] tr[data-case]').length"


def correct_in_viewer(page: Page) -> None:
    """Draw a line with the brush in the first plane, and save it."""
    within = "document.querySelector('iframe').contentDocument"
    button = "[...{0}.querySelectorAll('button')].find(one => one.textContent === '{1}')".format
    page.wait(f"{within}?.querySelector('.correcting button:not(:disabled)') != null", 60)
    page.wait(f"/value -?[0-9]/.test({within}.querySelector('.readout').textContent)", 60)  # its slice has come
    page.value("document.querySelector('iframe').scrollIntoView({block: 'center'})")
    page.value(f"{button(within, 'Brush')}.click()")
    boxes = (
        f"[document.querySelector('iframe'), {within}.querySelector('canvas')].map(one => one.getBoundingClientRect())"
    )
    (x, y), (left, top, width, height) = page.value(
        f"{boxes}.map((one, n) => n ? [one.x, one.y, one.width, one.height] : [one.x, one.y])"
    )
    ends = ((x + left + share * width, y + top + share * height) for share in (0.1, 0.9))
    page.drag(*ends)  # past all that has the label already
    page.wait(f"{within}.querySelector('.status').textContent === '1 stroke, not saved'", 10)
    keep_picture(page, "correct")
    page.value(f"{button(within, 'Save')}.click()")
    page.wait(f"{within}?.querySelector('aside')?.textContent.includes('corrected-1/') === true", 60)


def digests(folder: Path) -> dict[str, str]:
    files = (one for one in folder.rglob("*") if one.is_file())
    return {str(one.relative_to(folder)): hashlib.sha256(one.read_bytes()).hexdigest() for one in files}


@pytest.mark.whole
@pytest.mark.timeout(1500)
def test_from_a_folder_with_a_wrong_label_to_a_package(data, tmp_path):
    work, cohort = tmp_path / "work", tmp_path / "data" / "hippocampus"
    names = sorted(one.name for one in (data / "hippocampus" / "images").iterdir())[: CASES + 1]
    for kind in ("images", "labels"):
        (cohort / kind).mkdir(parents=True)
        for name in names[:CASES]:
            shutil.copy(data / "hippocampus" / kind / name, cohort / kind / name)
    (tmp_path / "data" / "corrected").mkdir()
    shutil.copy(data / "hippocampus" / "labels" / names[0], tmp_path / "data" / "corrected" / names[0])
    shutil.copy(data / "hippocampus" / "labels" / names[1], cohort / "labels" / names[0])  # that of another person
    new = tmp_path / "new.nii.gz"
    shutil.copy(data / "hippocampus" / "images" / names[CASES], new)
    wrong, seen = names[0].removesuffix(".nii.gz"), dict[str, float]()
    (tmp_path / "browser").mkdir()
    with studio(tmp_path) as address, browsers.browser_running(tmp_path / "browser") as browser:
        with browser.visited(
            address, "document.querySelectorAll('nav a').length === 4", size=(1280, 900), limit_s=20
        ) as page:
            paint = "performance.getEntriesByName('first-contentful-paint')[0]?.startTime"
            seen["first paint, ms"] = page.value(paint) or 0.0
            fill(page, "Folder", str(cohort))
            fill(page, "Names of label values, as 1=anterior,2=posterior", LABELS)
            click(page, "Check")
            page.wait(f"{CASE_ROWS} > 0", 120)
            findings = "document.querySelector('[aria-label=Findings]').textContent"
            assert wrong in page.value(findings)
            mask = f"[...document.querySelectorAll('tr[data-case=\"{wrong}\"] input')].at(-1)"
            set_control(page, mask, str(tmp_path / "data" / "corrected" / names[0]))
            page.wait(f"{findings}.includes('{CASES} of {CASES} can be used')", 120)
            assert sorted(one.name for one in cohort.iterdir()) == ["images", "labels"]
            page.wait("[...document.querySelectorAll('td img')].slice(0, 3).every(one => one.naturalWidth > 10)", 60)
            keep_picture(page, "data")

            click(page, "Plan")
            fill(page, "Minutes", MINUTES)
            fill(page, "Device", "cpu")
            page.value("document.querySelector('#plan form').requestSubmit()")
            batch = "document.querySelector('[data-decision=\"training.batch\"]')"
            page.wait(f"{batch} !== null", 120)
            shown = page.value("document.querySelectorAll('[data-decision]').length")
            begun = time.monotonic()
            set_control(page, f"{batch}.querySelector('[data-control]')", "2")
            page.wait(f"{batch}.dataset.changed !== undefined && {batch}.dataset.value === '2'", 20)
            seen["a change of the plan, s"] = time.monotonic() - begun
            set_control(page, f"{batch}.querySelector('[data-control]')", "-3")
            page.wait(f"{batch}.querySelector('[role=alert]').textContent.includes('greater than 0')", 20)
            click(page, "All decisions")
            page.wait(f"document.querySelectorAll('[data-decision]').length > {shown} + 40", 10)
            click(page, "All decisions")
            page.value(f"{batch}.scrollIntoView({{block: 'center'}})")
            keep_picture(page, "plan")
            click(page, "Train")
            train = "document.querySelector('[data-job][data-verb=train]')"
            page.wait(f"{train} !== null && Number({train}.dataset.points) > 5", 300)
            line = page.value("document.querySelector('#plan code[data-command=shell]').textContent")
            keep_picture(page, "training")
        with browser.visited(address, f"{train} !== null", size=(1280, 900), limit_s=20) as page:
            page.wait(f"{train}.dataset.state === 'done'", 600)
            click(page, "Training")
            page.wait("document.querySelectorAll('.chart').length === 2", 10)
            keep_picture(page, "training")
            click(page, "Runs")
            run = "document.querySelector('table[aria-label=Runs] tr[data-run]')"
            page.wait(f"{run} !== null && {run}.textContent.includes('dice')", 20)
            page.value(f"{run}.click()")
            drop(browser, page, "input[name=images]", new)
            click(page, "Predict")
            page.wait(f"{control('View new.nii.gz')} !== undefined", 120)
            click(page, "View new.nii.gz")
            correct_in_viewer(page)
            page.wait(f"{control('View new.nii.gz')} !== undefined", 10)
            [corrected] = work.glob("corrected-*/*.nii.gz")
            [predicted] = work.glob("predict-*/*.nii.gz")
            before, after = (np.asarray(nibabel.load(one).dataobj) for one in (predicted, corrected))
            assert 0 < np.count_nonzero(before != after) < before.size / 10
            set_control(page, "document.querySelector('[aria-label=package] [name=backends]')", "onnx")
            page.value("document.querySelector('[aria-label=package]').requestSubmit()")
            package = "document.querySelector('[data-job][data-verb=package]')"
            page.wait(f"{package} !== null && {package}.dataset.state === 'done'", 300)
            package_line = page.value(
                "document.querySelector('[aria-label=package] code[data-command=shell]').textContent"
            )
            click(page, "Report")
            page.wait("document.querySelector('iframe').src.endsWith('report.html')", 10)
            page.value("scrollTo(0, 0)")
            keep_picture(page, "runs")
            wrong_words = [one for one in page.complaints if "exception" in one]
            assert wrong_words == []
    # What the page showed gives the same in a shell.
    again = tmp_path / "again.yaml"
    words = [
        again if one.endswith(".yaml") else work / one if one.startswith("table-") else one
        for one in shlex.split(line)[1:]
    ]
    subprocess.run([sys.executable, "-m", "hilum", *map(str, words)], cwd=tmp_path, check=True, timeout=300)
    of_page, of_shell = (plan_file.read_plan(one) for one in (next(work.glob("plan-*.yaml")), again))
    assert [(name, one.value) for name, one in of_page] == [(name, one.value) for name, one in of_shell]
    words = shlex.split(package_line)[1:]
    words[words.index("--out") + 1] = str(tmp_path / "package")
    subprocess.run([sys.executable, "-m", "hilum", *words], cwd=work, check=True, timeout=300)
    made = digests(next(work.glob("package-*")))
    differing = {name for name, one in digests(tmp_path / "package").items() if made.get(name) != one}
    assert differing <= OF_THE_CERTIFICATE
    print(seen)  # noqa: T201
    assert seen["a change of the plan, s"] < 20
