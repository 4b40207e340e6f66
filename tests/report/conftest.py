"""A real browser, and small images that the tests of this room share."""

from __future__ import annotations

import re
from collections.abc import Iterator
from html.parser import HTMLParser

import numpy as np
import pytest

from browsers import Browser, browser_running
from hilum.values import Geometry, Image, Label

LABELS = (Label(0, "background"), Label(1, "anterior"), Label(2, "posterior"))


@pytest.fixture(scope="session")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser_running(tmp_path_factory.mktemp("browser")) as made:
        yield made


@pytest.fixture(scope="session")
def volume() -> Image:
    """(1, 12, 16, 10) with unlike spacing, stored towards front, feet and right; every voxel has its own value."""
    affine = np.array([[0, 0, 2.0, -30], [1.0, 0, 0, 20], [0, -0.5, 0, 10], [0, 0, 0, 1]])
    values = np.arange(12 * 16 * 10, dtype=np.int16).reshape(1, 12, 16, 10) - 500
    return Image(values, Geometry((12, 16, 10), affine), modality="MR", channels=("T1",))


@pytest.fixture(scope="session")
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
        self.addresses += [url or rule for url, rule in re.findall(r"url\(([^)]*)\)|@import\s+(\S+)", html)]

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
