"""The picture of the way of the data, with which the documentation begins.

python docs/draw_way.py        # writes docs/pictures/way.svg
"""

from __future__ import annotations

from html import escape
from itertools import pairwise
from pathlib import Path

PICTURE = Path(__file__).parent / "pictures" / "way.svg"
WIDTH, HEIGHT, LEFT, TOP = 982, 450, 20, 44
COLUMN, ROW, BOX, BAR = 137, 112, 120, 48
# Reader: top and height of the band.
BANDS = {
    "a researcher with a folder": (8, 216, "#eaf2f8"),
    "a company heading for clearance": (232, 104, "#f6f0e6"),
    "a hospital with a PACS": (344, 98, "#e9f4ec"),
}
# Name: column, row, lines. A command is dark, what it reads or writes is white.
COMMANDS = {
    "check": (1, 0),
    "plan": (3, 0),
    "train": (5, 0),
    "package": (6, 1),
    "evaluate": (5, 1),
    "compare": (3, 1),
    "predict": (1, 1),
    "study": (5, 2),
    "document": (3, 2),
    "accept": (6, 3),
    "serve": (5, 3),
    "monitor": (3, 3),
    "change": (1, 3),
}
THINGS = {
    "data": (0, 0, "folder, table,|DICOM"),
    "rows": (2, 0, "dataset.csv|and findings"),
    "decisions": (4, 0, "plan.yaml|with reasons"),
    "run": (6, 0, "run|model and report"),
    "figures": (4, 1, "figures|with intervals"),
    "images": (2, 1, "new images"),
    "answers": (0, 1, "masks, tables,|DICOM results"),
    "model": (6, 2, "package|MONAI, ONNX"),
    "records": (4, 2, "records"),
    "documents": (2, 2, "drafts of|documents"),
    "pacs": (4, 3, "PACS|studies, answers"),
    "alerts": (2, 3, "alerts|and figures"),
    "next": (0, 3, "the next|package"),
}
ARROWS = (
    "data check rows plan decisions train run package model accept serve pacs monitor alerts change next",
    "pacs serve",
    "run evaluate figures compare",
    "images predict answers",
    "figures records document documents",
    "study records",
)


def place(name: str) -> tuple[float, float]:
    """The middle of a box."""
    column, row, *_ = COMMANDS.get(name) or THINGS[name]
    return LEFT + column * COLUMN + BOX / 2, TOP + row * ROW + BAR / 2


def arrow(start: str, end: str) -> str:
    """A line from the edge of one box to that of the next."""
    (x0, y0), (x1, y1) = place(start), place(end)
    if y0 == y1:
        step = BOX / 2 if x1 > x0 else -BOX / 2
        ends = x0 + step, y0, x1 - step, y1
    elif abs(x0 - x1) > 1:
        ends = x0 - BOX / 2, y0 + BAR / 2, x1 + BOX / 2, y1 - BAR / 2
    else:
        step = BAR / 2 if y1 > y0 else -BAR / 2
        ends = x0, y0 + step, x1, y1 - step
    return '<line x1="{:g}" y1="{:g}" x2="{:g}" y2="{:g}" stroke="#4a6274" marker-end="url(#head)"/>'.format(*ends)


def box(name: str, lines: list[str], is_command: bool) -> list[str]:
    """A box with one or two lines of words in its middle."""
    x, y = place(name)
    fill, ink = ("#2c5d7c", "#ffffff") if is_command else ("#ffffff", "#12222e")
    shape = f'<rect x="{x - BOX / 2:g}" y="{y - BAR / 2:g}" width="{BOX}" height="{BAR}" rx="6" fill="{fill}" '
    weight = ' font-weight="600"' if is_command else ""
    first = y + 5 - 8 * (len(lines) - 1)
    return [shape + 'stroke="#2c5d7c"/>'] + [
        f'<text x="{x:g}" y="{first + 16 * n:g}" font-size="13" text-anchor="middle" fill="{ink}"'
        f"{weight}>{escape(line)}</text>"
        for n, line in enumerate(lines)
    ]


def drawing() -> str:
    """The picture as SVG."""
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {HEIGHT}" role="img" '
        'font-family="system-ui, sans-serif">',
        "<title>The way of the data: from a folder to a model in a hospital, and back</title>",
        '<defs><marker id="head" viewBox="0 0 8 8" refX="7" refY="4" markerWidth="7" markerHeight="7" orient="auto">'
        '<path d="M0 0 L8 4 L0 8 z" fill="#4a6274"/></marker></defs>',
        f'<rect width="{WIDTH}" height="{HEIGHT}" fill="#ffffff"/>',
    ]
    for words, (top, height, colour) in BANDS.items():
        parts += [
            f'<rect x="8" y="{top}" width="{WIDTH - 16}" height="{height}" rx="8" fill="{colour}"/>',
            f'<text x="20" y="{top + 20}" font-size="13" font-style="italic" fill="#12222e">{words}</text>',
        ]
    for words in ARROWS:
        names = words.split()
        parts += [arrow(*pair) for pair in pairwise(names)]
    for name in COMMANDS:
        parts += box(name, [name], is_command=True)
    for name, (_, _, words) in THINGS.items():
        parts += box(name, words.split("|"), is_command=False)
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.write_text(drawing(), encoding="utf-8")
