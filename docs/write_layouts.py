"""The page of the smallest folder of each layout, made of the example that the layout states.

python docs/write_layouts.py        # writes docs/layout-examples.md
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from hilum.layouts import layout
from hilum.layouts.layout import LAYOUTS, Layout

PAGE = Path(__file__).parent / "layout-examples.md"
HEAD = """# The smallest folder of each layout

`python docs/write_layouts.py` writes this page from the example of each layout, which the tests read too. A folder of
another size is laid out alike; [layouts of data sets](layouts.md) says what else each understands.
"""
# Of text files that differ in their names alone one is shown.
LANGUAGES = {".json": "json", ".geojson": "json", ".xml": "xml", ".yaml": "yaml"}


def page() -> str:
    """The page: a section for each layout."""
    return "\n".join([HEAD, *(line for name in LAYOUTS for line in section(layout.load_layout(name)))]).rstrip() + "\n"


def section(shown: Layout) -> Iterator[str]:
    """A layout: its files, and what its text files hold."""
    yield f"## {shown.name}\n\n{shown.what[0].upper()}{shown.what[1:]}.\n\n```text"
    yield from sorted(shown.example)
    yield "```\n"
    texts = {text: name for name, text in sorted(shown.example.items(), reverse=True) if isinstance(text, str) and text}
    for text, name in sorted(texts.items(), key=lambda pair: pair[1]):
        yield f"`{name}`:\n\n```{LANGUAGES.get(Path(name).suffix, 'text')}\n{text.rstrip()}\n```\n"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
