"""A real browser, and small images that the tests of this room share."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from html import unescape
from html.parser import HTMLParser
from pathlib import Path
from tempfile import TemporaryDirectory

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture

from isocenter.values import Geometry, Image, Label

LABELS = (Label(0, "background"), Label(1, "anterior"), Label(2, "posterior"))


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: the document after its scripts ran, and what it complained of."""

    dom: str
    complaints: list[str]

    @property
    def state(self) -> Mapping[str, str]:
        """The data attributes of the body."""
        body = re.search(r"<body[^>]*>", self.dom)
        return dict(re.findall(r'data-([a-z-]+)="([^"]*)"', body.group(0))) if body else {}


@dataclass(frozen=True)
class Browser:
    """Chromium without a window, without a network."""

    program: str
    room: Path

    def read(self, html: str, *, fragment: str = "", size: tuple[int, int] = (1200, 900)) -> Seen:
        done = self._run(html, "--dump-dom", fragment=fragment, size=size)
        return Seen(done.stdout, [line for line in done.stderr.splitlines() if "CONSOLE" in line])

    def look(
        self, html: str, *, fragment: str = "", size: tuple[int, int] = (1200, 900), dark: bool = False
    ) -> NDArray[np.int64]:
        """(rows, columns, 3) of the page's first screen, once it has settled: two pictures in a row are alike."""
        shot, previous = self.room / "page.png", None
        for _ in range(10):
            self._run(html, f"--screenshot={shot}", fragment=fragment, size=size, dark=dark)
            with Picture.open(shot) as picture:
                pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
            if previous is not None and np.array_equal(pixels, previous):
                return pixels
            previous = pixels
        raise AssertionError("the page never looked the same twice")

    def printed(self, html: str) -> list[tuple[str, float, float, float]]:
        """(word, its left and right end, the width of its page) of every word on paper, in points."""
        paper = self.room / "page.pdf"
        self._run(html, f"--print-to-pdf={paper}", fragment="", size=(1200, 900))
        text = subprocess.run(["pdftotext", "-bbox", paper, "-"], capture_output=True, text=True, check=True).stdout
        words, width = list[tuple[str, float, float, float]](), 0.0
        for line in text.splitlines():
            if page := re.search(r'<page width="([\d.]+)"', line):
                width = float(page.group(1))
            if word := re.search(r'xMin="([\d.-]+)".*xMax="([\d.-]+)".*>(.*)</word>', line):
                words.append((unescape(word.group(3)), float(word.group(1)), float(word.group(2)), width))
        return words

    def _run(
        self, html: str, task: str, *, fragment: str, size: tuple[int, int], dark: bool = False
    ) -> subprocess.CompletedProcess[str]:
        page = self.room / "page.html"
        page.write_text(html, encoding="utf-8")
        address = page.as_uri() + (f"#{fragment}" if fragment else "")
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0",
            f"--window-size={size[0]},{size[1]}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=20000",
            "--run-all-compositor-stages-before-draw",
        ]  # fmt: skip
        try:
            return self._begun([*options, task, address], timeout=40)
        except subprocess.TimeoutExpired:  # now and then it stands still before it has read a page
            return self._begun([*options, task, address], timeout=120)

    def _begun(self, options: Sequence[str], timeout: float) -> subprocess.CompletedProcess[str]:
        """One run in a profile of its own: that of a browser which is still ending holds the next one up."""
        with TemporaryDirectory(dir=self.room, ignore_cleanup_errors=True) as profile:
            command = [self.program, f"--user-data-dir={profile}", *options]
            return subprocess.run(command, capture_output=True, text=True, timeout=timeout, check=True)


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium to show pages with")
    return Browser(program, tmp_path)


@pytest.fixture
def volume() -> Image:
    """(1, 12, 16, 10) with unlike spacing, stored towards front, feet and right; every voxel has its own value."""
    affine = np.array([[0, 0, 2.0, -30], [1.0, 0, 0, 20], [0, -0.5, 0, 10], [0, 0, 0, 1]])
    values = np.arange(12 * 16 * 10, dtype=np.int16).reshape(1, 12, 16, 10) - 500
    return Image(values, Geometry((12, 16, 10), affine), modality="MR", channels=("T1",))


@pytest.fixture
def box(volume: Image) -> Image:
    """A label map on the volume: label 1 at i 3..5, j 4..9, k 2..6, label 2 at one voxel."""
    values = np.zeros((1, 12, 16, 10), dtype=np.uint8)
    values[0, 3:6, 4:10, 2:7] = 1
    values[0, 9, 12, 8] = 2
    return Image(values, volume.geometry, channels=("reference",), labels=LABELS)


class Outline(HTMLParser):
    """A page's tags, checked for being closed in order, and all addresses that it would load or lead to."""

    VOID = frozenset({"meta", "link", "img", "source", "br", "hr", "input"})

    def __init__(self, html: str) -> None:
        super().__init__()
        self.open: list[str] = []
        self.faults: list[str] = []
        self.addresses: list[str] = []
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.text = ""
        self.feed(html)
        self.close()
        self.faults += [f"<{tag}> is not closed" for tag in self.open]
        self.addresses += re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", html)

    def handle_starttag(self, tag: str, attributes: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attributes)))
        self.addresses += [v or "" for k, v in attributes if k in {"src", "href", "srcset", "action", "data"}]
        if tag not in self.VOID:
            self.open.append(tag)

    def handle_endtag(self, tag: str) -> None:
        if not self.open or self.open.pop() != tag:
            self.faults.append(f"</{tag}> closes nothing")

    def handle_data(self, data: str) -> None:
        if not self.open or self.open[-1] not in {"script", "style"}:
            self.text += data

    def all(self, tag: str) -> list[dict[str, str | None]]:
        return [attributes for name, attributes in self.tags if name == tag]


@pytest.fixture
def outline() -> type[Outline]:
    return Outline
