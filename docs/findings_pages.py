"""The findings of `bench/findings` as pages of the site, below `findings/`: mkdocs reads no page outside `docs/`.

In the checkout a link goes from `docs/` to `bench/findings/` and back; on the site both lie in one folder.
"""

from __future__ import annotations

import posixpath
import re
from pathlib import Path
from typing import Any

from mkdocs.structure.files import File, Files

ROOT = Path(__file__).parents[1]
# Folders of the checkout whose files the site has, and where it has them.
ON_SITE = {"bench/findings": "findings", "docs": ""}
LINK = re.compile(r"(?<=\]\()(?!\w+:)([^)#\s]+)")


def on_files(files: Files, config: Any, **_: Any) -> Files:
    """Add the findings."""
    for path in sorted((ROOT / "bench" / "findings").glob("*.md")):
        files.append(File.generated(config, f"findings/{path.name}", abs_src_path=str(path)))
    return files


def on_page_markdown(markdown: str, page: Any, **_: Any) -> str:
    """Lead links between findings and other pages to where they lie on the site."""
    here = posixpath.dirname(page.file.src_uri)
    in_checkout = "bench/findings" if here == "findings" else posixpath.join("docs", here)

    def lead(link: re.Match[str]) -> str:
        target = posixpath.normpath(posixpath.join(in_checkout, link[1]))
        return posixpath.relpath(place_on_site(target), here or ".")

    return LINK.sub(lead, markdown)


def place_on_site(path: str) -> str:
    """Where the site has a file of the checkout; the path as it stands, of which mkdocs warns, where it has none."""
    for folder, place in ON_SITE.items():
        if path.startswith(f"{folder}/"):
            return posixpath.join(place, path.removeprefix(f"{folder}/"))
    return path
