"""A real browser, which tests ask for pages."""

from __future__ import annotations

import io
import json
import os
import re
import shutil
import subprocess
import sys
import time
from base64 import b64decode
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from html import unescape
from itertools import count
from pathlib import Path
from select import select
from typing import Any

import numpy as np
import pytest
from numpy.typing import NDArray
from PIL import Image as Picture

# A program that takes what it is asked from its file 3 and answers into its file 4.
LISTENING = """
import fcntl, os, sys
asked, answers = [fcntl.fcntl(int(number), fcntl.F_DUPFD, 10) for number in sys.argv[1:3]]
os.dup2(asked, 3), os.dup2(answers, 4)
os.execv(sys.argv[3], sys.argv[3:])
"""
# Numbers of the keys that are no letters, as DOM's keyCode has them.
NUMBERS = {"Tab": 9, "Enter": 13, "Escape": 27, "PageUp": 33, "PageDown": 34, "ArrowLeft": 37, "ArrowUp": 38}
NUMBERS |= {"ArrowRight": 39, "ArrowDown": 40}
# By these a page says that something is wrong.
COMPLAINTS = {"Runtime.exceptionThrown", "Runtime.consoleAPICalled", "Log.entryAdded"}


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


class Browser:
    """Chromium without a window and without a network: one for all tests, each page in a tab of its own.

    It is asked through a pipe, as chromedevtools.github.io/devtools-protocol has it: to start anew takes a second.
    """

    def __init__(self, program: str, room: Path, *further: str) -> None:
        (theirs, ours), (back, answers) = os.pipe(), os.pipe()
        options = [
            "--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--hide-scrollbars",
            "--disable-background-networking", "--disable-component-update", "--disable-sync",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1", "--run-all-compositor-stages-before-draw",
            f"--user-data-dir={room / 'profile'}", "--remote-debugging-pipe", *further, "about:blank",
        ]  # fmt: skip
        command = [sys.executable, "-I", "-S", "-c", LISTENING, str(theirs), str(answers), program, *options]
        log = (room / "log").open("wb")
        self.room, self._count, self._events = room, count(1), list[dict[str, Any]]()
        self._process = subprocess.Popen(command, pass_fds=(theirs, answers), stdout=log, stderr=log)
        log.close()
        os.close(theirs)
        os.close(answers)
        self._asks, self._answers, self._heard = ours, back, b""

    def close(self) -> None:
        """End it."""
        self._process.kill()
        self._process.wait()
        os.close(self._asks)
        os.close(self._answers)

    def read(self, html: str, *, fragment: str = "", size: tuple[int, int] = (1200, 900)) -> Seen:
        """The page once its scripts have run."""
        with self._tab(html, fragment, size) as tab:
            made = self._ask("Runtime.evaluate", tab, expression="document.documentElement.outerHTML")
            said = [json.dumps(one["params"]) for one in self._events if one["method"] in COMPLAINTS]
            return Seen(made["result"]["value"], said)

    def look(
        self, html: str, *, fragment: str = "", size: tuple[int, int] = (1200, 900), dark: bool = False
    ) -> NDArray[np.int64]:
        """(rows, columns, 3) of the page's first screen, once it has settled: two pictures in a row are alike."""
        previous = None
        with self._tab(html, fragment, size, dark) as tab:
            for _ in range(10):
                shot = b64decode(self._ask("Page.captureScreenshot", tab, format="png")["data"])
                with Picture.open(io.BytesIO(shot)) as picture:
                    pixels = np.asarray(picture.convert("RGB")).astype(np.int64)
                if previous is not None and np.array_equal(pixels, previous):
                    return pixels
                previous = pixels
        raise AssertionError("the page never looked the same twice")

    def printed(self, html: str) -> list[tuple[str, float, float, float]]:
        """(word, its left and right end, the width of its page) of every word on paper, in points."""
        return [word for words in self.pages(html) for word in words]

    def pages(self, html: str) -> list[list[tuple[str, float, float, float]]]:
        """The words of `printed`, a list a page."""
        paper = self.room / "page.pdf"
        with self._tab(html, "", (1200, 900)) as tab:
            paper.write_bytes(b64decode(self._ask("Page.printToPDF", tab)["data"]))
        text = subprocess.run(["pdftotext", "-bbox", paper, "-"], capture_output=True, text=True, check=True).stdout
        pages, width = list[list[tuple[str, float, float, float]]](), 0.0
        for line in text.splitlines():
            if page := re.search(r'<page width="([\d.]+)"', line):
                width = float(page.group(1))
                pages.append([])
            if word := re.search(r'xMin="([\d.-]+)".*xMax="([\d.-]+)".*>(.*)</word>', line):
                pages[-1].append((unescape(word.group(3)), float(word.group(1)), float(word.group(2)), width))
        return pages

    @contextmanager
    def visited(self, url: str, until: str, *, size: tuple[int, int], limit_s: float) -> Iterator[Page]:
        """A page of a server, once an expression of JavaScript is true of it."""
        self._events.clear()
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        tab = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable", tab)
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", tab, **screen)
        self._ask("Page.navigate", tab, url=url)
        page = Page(self, tab)
        page.wait(until, limit_s)
        yield page
        self._ask("Target.closeTarget", targetId=target)

    @contextmanager
    def _tab(self, html: str, fragment: str, size: tuple[int, int], dark: bool = False) -> Iterator[str]:
        """A tab that shows the page, after twenty seconds of the page's own clock."""
        page = self.room / "page.html"
        page.write_text(html, encoding="utf-8")
        self._events.clear()
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        tab = self._ask("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self._ask(f"{domain}.enable", tab)
        screen = {"width": size[0], "height": size[1], "deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", tab, **screen)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", tab, features=[scheme])
        self._ask("Page.setLifecycleEventsEnabled", tab, enabled=True)
        begun = self._ask("Page.navigate", tab, url=page.as_uri() + (f"#{fragment}" if fragment else ""))
        self._await("Page.lifecycleEvent", loaderId=begun["loaderId"], name="load")
        clock = {"policy": "pauseIfNetworkFetchesPending", "budget": 20000, "maxVirtualTimeTaskStarvationCount": 9999}
        self._ask("Emulation.setVirtualTimePolicy", tab, **clock)
        self._await("Emulation.virtualTimeBudgetExpired")
        yield tab
        self._ask("Target.closeTarget", targetId=target)

    def _ask(self, method: str, tab: str | None = None, **given: Any) -> dict[str, Any]:
        """What it answers; all that it tells meanwhile is kept."""
        asked: dict[str, Any] = {"id": next(self._count), "method": method, "params": given}
        os.write(self._asks, json.dumps(asked | ({"sessionId": tab} if tab else {})).encode() + b"\0")
        while (message := self._next()).get("id") != asked["id"]:
            self._events.append(message)
        assert "error" not in message, (method, message)
        return message["result"]

    def _await(self, event: str, **stated: str) -> None:
        """Until it tells this event with these parameters."""
        while not any(one["method"] == event and stated.items() <= one["params"].items() for one in self._events):
            self._events.append(self._next())

    def _next(self) -> dict[str, Any]:
        while b"\0" not in self._heard:
            ready, _, _ = select([self._answers], [], [], 60)
            assert ready, "the browser stands still"
            more = os.read(self._answers, 1 << 20)
            assert more, f"the browser has ended: {(self.room / 'log').read_text(errors='replace')}"
            self._heard += more
        message, _, self._heard = self._heard.partition(b"\0")
        return json.loads(message)


@dataclass(frozen=True)
class Page:
    """A page of a server that is shown."""

    browser: Browser
    tab: str

    def value(self, expression: str) -> Any:
        """What an expression of JavaScript comes to; None for what fails."""
        made = self.browser._ask("Runtime.evaluate", self.tab, expression=expression, returnByValue=True)
        return made["result"].get("value")

    def wait(self, until: str, limit_s: float) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + limit_s
        while self.value(until) is not True:
            assert time.monotonic() < end, f"never true: {until}; the page says {self.value('document.body.innerText')}"
            time.sleep(0.2)

    def turn_wheel(self, x: float, y: float, steps: int) -> None:
        """Turn the wheel of the mouse over a point by so many steps, away from the user where they are negative."""
        turned = {"type": "mouseWheel", "x": x, "y": y, "deltaX": 0, "deltaY": 100 * steps}
        self.browser._ask("Input.dispatchMouseEvent", self.tab, **turned)

    def press(self, key: str) -> None:
        """Press a key, by its name in KeyboardEvent.key."""
        letter = {"Enter": "\r"}.get(key, key if len(key) == 1 else "")
        given = {"key": key, "code": key, "windowsVirtualKeyCode": NUMBERS.get(key, ord(key[0].upper()))}
        down = {"type": "keyDown", "text": letter, **given} if letter else {"type": "rawKeyDown", **given}
        self.browser._ask("Input.dispatchKeyEvent", self.tab, **down)
        self.browser._ask("Input.dispatchKeyEvent", self.tab, type="keyUp", **given)

    def write(self, text: str) -> None:
        """Write into the field that has the focus."""
        self.browser._ask("Input.insertText", self.tab, text=text)

    def drag(self, *points: tuple[float, float]) -> None:
        """Drag from point to point with the left button pressed."""
        for kind, (x, y) in (
            ("mousePressed", points[0]),
            *(("mouseMoved", one) for one in points),
            ("mouseReleased", points[-1]),
        ):
            pressed = {"button": "left", "buttons": 1, "clickCount": 1}
            self.browser._ask("Input.dispatchMouseEvent", self.tab, type=kind, x=x, y=y, **pressed)

    @property
    def complaints(self) -> list[str]:
        """What the page has said that is wrong, and what it asked for in vain."""
        said = [one["params"] for one in self.browser._events if one["method"] in COMPLAINTS]
        return [json.dumps(one) for one in said if one.get("entry", {}).get("source") != "recommendation"]

    def picture(self) -> NDArray[np.uint8]:
        """(rows, columns, 3) of what is seen."""
        shot = b64decode(self.browser._ask("Page.captureScreenshot", self.tab, format="png")["data"])
        with Picture.open(io.BytesIO(shot)) as picture:
            return np.asarray(picture.convert("RGB"))


@contextmanager
def browser_running(room: Path, *further: str) -> Iterator[Browser]:
    """Chromium, with a folder of its own and further options; the test is skipped where it is not installed."""
    program = shutil.which("chromium") or shutil.which("chromium-browser") or shutil.which("google-chrome")
    if program is None:
        pytest.skip("there is no Chromium to show pages with")
    made = Browser(program, room, *further)
    try:
        yield made
    finally:
        made.close()
