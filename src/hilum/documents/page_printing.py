"""HTML pages printed as PDF, by a Chromium that is installed."""

from __future__ import annotations

import os
import shutil
import subprocess
import tempfile
from collections.abc import Sequence
from pathlib import Path

from hilum.errors import ResourceError

PROGRAMS = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome", "msedge")
LONGEST = 120  # seconds for one page; a large one takes two


def browser_path() -> str:
    """The path of a Chromium; ResourceError where there is none."""
    for name in PROGRAMS:
        if (path := shutil.which(name)) is not None:
            return path
    raise ResourceError(
        "there is no Chromium to print with", "--format pdf", "Install chromium, or print the HTML pages from a browser"
    )


def print_pages(pages: Sequence[Path], browser: str) -> list[Path]:
    """Print HTML files beside themselves as PDF; ResourceError names the first that was not printed."""
    return [_print_page(page, browser) for page in pages]


def _print_page(page: Path, browser: str) -> Path:
    target = page.with_suffix(".pdf")
    with tempfile.TemporaryDirectory() as profile:
        flags = ["--headless", "--disable-gpu", "--no-pdf-header-footer", f"--user-data-dir={profile}"]
        if hasattr(os, "geteuid") and os.geteuid() == 0:
            flags.append("--no-sandbox")  # Chromium refuses to start with it as root; the page loads nothing
        command = [browser, *flags, f"--print-to-pdf={target.absolute()}", page.absolute().as_uri()]
        try:
            done = subprocess.run(command, capture_output=True, timeout=LONGEST, check=False)  # noqa: S603 - our own page
            problem = done.stderr.decode(errors="replace").strip().splitlines()[-1:]
        except subprocess.TimeoutExpired:
            problem = [f"it took longer than {LONGEST} s"]
    if not target.is_file():
        raise ResourceError(
            f"was not printed ({' '.join(problem) or 'no reason was given'})", page.name, "Print it from a browser"
        )
    return target
