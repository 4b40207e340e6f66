"""A real browser, and small images that the tests of this room share."""

from __future__ import annotations

import re
import shutil
import subprocess
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import pytest
from PIL import Image as Picture

from isocenter.values import Geometry, Image, Label

LABELS = (Label(0, "background"), Label(1, "anterior"), Label(2, "posterior"))


@dataclass(frozen=True)
class Seen:
    """What a browser made of a page: the document after its scripts ran, what it complained of, a picture."""

    dom: str
    complaints: list[str]
    picture: Picture.Image

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

    def show(self, html: str, *, fragment: str = "", size: tuple[int, int] = (1200, 900), dark: bool = False) -> Seen:
        page = self.room / "page.html"
        page.write_text(html, encoding="utf-8")
        address = page.as_uri() + (f"#{fragment}" if fragment else "")
        dom = self._run(address, "--dump-dom", size=size, dark=dark)
        shot = self.room / "page.png"
        again = self._run(address, f"--screenshot={shot}", size=size, dark=dark)
        said = [line for line in (dom.stderr + again.stderr).splitlines() if "CONSOLE" in line]
        with Picture.open(shot) as picture:
            return Seen(dom.stdout, said, picture.convert("RGB"))

    def _run(self, address: str, task: str, *, size: tuple[int, int], dark: bool) -> subprocess.CompletedProcess[str]:
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND", "--enable-logging=stderr", "--v=0",
            f"--user-data-dir={self.room / 'profile'}", f"--window-size={size[0]},{size[1]}",
            f"--blink-settings=preferredColorScheme={0 if dark else 1}", "--virtual-time-budget=20000",
        ]  # fmt: skip
        return subprocess.run(
            [self.program, *options, task, address], capture_output=True, text=True, timeout=120, check=True
        )


@pytest.fixture
def browser(tmp_path: Path) -> Browser:
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium to show pages with")
    return Browser(program, tmp_path)


@pytest.fixture
def volume() -> Image:
    """(1, 12, 16, 10) with unlike spacing, stored towards left, back and feet; every voxel has its own value."""
    affine = np.diag([-1.0, -0.5, -2.0, 1.0])
    affine[:3, 3] = 30, 20, 10
    values = np.arange(12 * 16 * 10, dtype=np.int16).reshape(1, 12, 16, 10) - 500
    return Image(values, Geometry((12, 16, 10), affine), modality="MR", channels=("T1",))


@pytest.fixture
def box(volume: Image) -> Image:
    """A label map on the volume: label 1 at i 3..5, j 4..9, k 2..6, label 2 at one voxel."""
    values = np.zeros((1, 12, 16, 10), dtype=np.uint8)
    values[0, 3:6, 4:10, 2:7] = 1
    values[0, 9, 12, 8] = 2
    return Image(values, volume.geometry, channels=("reference",), labels=LABELS)
