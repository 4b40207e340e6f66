"""A studio that runs, and how a person works its pages in a real browser."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import browsers
from browsers import Browser, Page

# Where pictures of the pages are kept for a person who looks at them.
PICTURES = os.environ.get("HILUM_TEST_PICTURES", "")


def control(words: str, kind: str = "button, a") -> str:
    """The first visible control with these words."""
    return (
        f"[...document.querySelectorAll({json.dumps(kind)})].find(one => one.offsetParent !== null && "
        f"one.textContent.trim() === {json.dumps(words)})"
    )


def click(page: Page, words: str) -> None:
    page.wait(f"{control(words)} !== undefined", 10)
    page.value(f"{control(words)}.click()")


def fill(page: Page, words: str, value: str) -> None:
    """Write into the visible field that has these words, as a person does."""
    shown = f"one.offsetParent && one.firstChild.textContent === {json.dumps(words)}"
    field = f"[...document.querySelectorAll('label')].find(one => {shown}).control"
    set_control(page, field, value)


def set_control(page: Page, found: str, value: str) -> None:
    """Write into a control that an expression finds."""
    changed = "one.dispatchEvent(new Event('change', {bubbles: true}))"
    assert page.value(f"(() => {{ const one = {found}; one.value = {json.dumps(value)}; return {changed} }})()")


def drop(browser: Browser, page: Page, selector: str, path: Path) -> None:
    """Choose a file, as a drop does."""
    root = browser._ask("DOM.getDocument", page.tab)["root"]["nodeId"]
    node = browser._ask("DOM.querySelector", page.tab, nodeId=root, selector=selector)["nodeId"]
    browser._ask("DOM.setFileInputFiles", page.tab, nodeId=node, files=[str(path)])


def keep_picture(page: Page, name: str) -> None:
    if PICTURES:
        browsers.Picture.fromarray(page.picture()).save(Path(PICTURES) / f"studio_{name}.png")


@contextmanager
def studio(folder: Path) -> Iterator[str]:
    """A running studio; its address."""
    words = ["studio", str(folder / "work"), "--root", str(folder / "data"), "--no-browser"]
    program = [sys.executable, "-m", "hilum", *words]
    with subprocess.Popen(program, stdout=subprocess.PIPE, text=True, cwd=folder) as server:
        try:
            yield server.stdout.readline().strip()
        finally:
            server.terminate()
