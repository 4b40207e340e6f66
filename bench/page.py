"""The node's page for readers beside OHIF: the same CT, the same browser without a graphics card, one after the other.

    (cd .bench/ohif && npm pack @ohif/app && tar xzf *.tgz)
    python bench/page.py .bench/ohif/package/dist --record

A CT of 200 slices of 512 x 512 lies on a node, which serves both viewers. Measured are the seconds from an address to
the first image, by a browser that has never seen the viewer and by one that has, and the pictures drawn a second while
the wheel is turned thirty times a second.
"""

from __future__ import annotations

import json
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
from beside import ROOT, arguments, record

from isocenter.files.dicom.writing import series_writing
from isocenter.files.dicom.writing.series_writing import SeriesNames
from isocenter.values import Geometry, Image

sys.path.insert(0, str(ROOT / "tests"))
from browsers import Page, browser_running
from ports import free_port
from service.web_served import served

SIDE, SLICES, TURNS, PER_S = 512, 200, 150, 30
SCREEN = (1280, 860)
ASKED = {"first image, s": 1.5, "pictures a second": 30}
# The canvas that scrolls, and whether something bright is drawn in its middle.
CANVASES = {"Isocenter": 'canvas[data-pane="axial"]', "OHIF": "canvas.cornerstone-canvas"}
BRIGHT = """(c => {{ if (!c || !c.width) return false; const d = c.getContext('2d')
  .getImageData(c.width / 2 - 20, c.height / 2 - 20, 40, 40).data; return d.some((v, i) => i % 4 === 0 && v > 60); }})
  (document.querySelector('{0}'))"""
COUNTED = {
    "Isocenter": "(c => Number(c.dataset.drawn))(document.querySelector('{0}'))",
    "OHIF": "window.drawn",
}
# OHIF's tour of itself lies over the pictures when it is new; cornerstone tells each picture to an element around it.
COUNT_OHIF = """for (const b of document.querySelectorAll('button')) if (b.innerText.trim() === 'Skip all') b.click();
  window.drawn = 0; for (let e = document.querySelector('canvas.cornerstone-canvas'); e; e = e.parentElement)
  e.addEventListener('CORNERSTONE_IMAGE_RENDERED', (e) => { window.drawn += e !== window.told; window.told = e; });"""


def main() -> None:
    parser = arguments(__doc__, repeats=2)
    parser.add_argument("ohif", type=Path, help="the folder `dist` of a build of OHIF")
    given = parser.parse_args()
    slices = 20 if given.small else SLICES
    port = free_port()
    rows = list[dict[str, Any]]()
    with tempfile.TemporaryDirectory() as place:
        folder = Path(place)
        files = written(folder / "ct", slices)
        with served(folder / "node", ohif={"folder": given.ohif.absolute(), "port": port}) as web:
            for start in range(0, len(files), 20):
                web.store(*[file.read_bytes() for file in files[start : start + 20]])
            [study] = web.client.get("/dicomweb/studies").json()
            uid = study["0020000D"]["Value"][0]
            addresses = {
                "Isocenter": f"{web.url}/study/{uid}",
                "OHIF": f"http://127.0.0.1:{port}/viewer?StudyInstanceUIDs={uid}",
            }
            for turn in range(given.repeats):
                for name in sorted(addresses, reverse=bool(turn % 2)):
                    home = folder / f"browser-{name}-{turn}"
                    home.mkdir()
                    rows.append({"viewer": name, "turn": turn} | looked(name, addresses[name], home))
                    print(rows[-1], flush=True)
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *(list(row.values()) for row in rows)]
    text = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    asked = ", ".join(f"{name} {value}" for name, value in ASKED.items())
    text += f"\n\nAsked of the page: {asked}. OHIF: {version(given.ohif)}."
    print(text)
    if given.record:
        record("page", "The page for readers beside OHIF", text, {"rows": rows})


def written(folder: Path, slices: int) -> list[Path]:
    """The files of a CT of a bright cylinder in noise."""
    random = np.random.default_rng(0)
    x, y, z = np.ogrid[:SIDE, :SIDE, :slices]
    body = 1000 * (((x - 256) / 200) ** 2 + ((y - 256) / 150) ** 2 < 1) + 300 * (
        (x - 256 - z // 4) ** 2 + (y - 256) ** 2 < 900
    )
    data = (body - 1000 + random.normal(0, 20, (SIDE, SIDE, slices))).astype(np.int16)
    image = Image(data[None], Geometry(data.shape, np.diag([-0.7, -0.7, 1.5, 1.0])), modality="CT")
    series_writing.write_series(image, SeriesNames("p", "study", "series"), folder)
    return sorted(folder.iterdir())


def looked(name: str, address: str, home: Path) -> dict[str, float]:
    """How a browser that is new shows a viewer."""
    canvas = CANVASES[name]
    shown = BRIGHT.format(canvas)
    with browser_running(home) as browser:
        began = time.monotonic()
        with browser.visited(address, "true", size=SCREEN, limit_s=60) as page:
            new = until(page, shown, began)
        began = time.monotonic()
        with browser.visited(address, "true", size=SCREEN, limit_s=60) as page:
            again = until(page, shown, began)
            time.sleep(15)  # both fetch slices ahead
            if name == "OHIF":
                page.value(COUNT_OHIF)
                time.sleep(2)
            left, top, width, height = page.value(
                f"(r => [r.left, r.top, r.width, r.height])(document.querySelector('{canvas}').getBoundingClientRect())"
            )
            count: Callable[[], int] = lambda: page.value(COUNTED[name].format(canvas))  # noqa: E731
            turned(page, left + width / 2, top + height / 2, 5)
            before, started = count(), time.monotonic()
            turned(page, left + width / 2, top + height / 2, TURNS)
            drawn, took = count() - before, time.monotonic() - started
    return {
        "first image, new, s": round(new, 2),
        "first image, s": round(again, 2),
        "pictures a second": round(drawn / took, 1),
    }


def until(page: Page, expression: str, began: float) -> float:
    """Seconds until an expression is true."""
    while page.value(expression) is not True:
        if time.monotonic() - began > 120:
            sys.exit(f"never drawn; the page says {page.value('document.body.innerText')}")
        time.sleep(0.02)
    return time.monotonic() - began


def turned(page: Page, x: float, y: float, steps: int) -> None:
    """Turn the wheel so many times, thirty a second, there and back."""
    began = time.monotonic()
    for number in range(steps):
        page.turn_wheel(x, y, 1 if number % 80 < 40 else -1)
        time.sleep(max(0.0, began + (number + 1) / PER_S - time.monotonic()))


def version(ohif: Path) -> str:
    """Which release of OHIF it is."""
    return str(json.loads((ohif.parent / "package.json").read_text())["version"])


if __name__ == "__main__":
    main()
