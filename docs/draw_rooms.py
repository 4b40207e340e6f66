"""The picture of the rooms, drawn from the import layers in pyproject.toml.

python docs/draw_rooms.py        # writes docs/pictures/rooms.svg
"""

from __future__ import annotations

import tomllib
from html import escape
from pathlib import Path

ROOT = Path(__file__).parent.parent
PICTURE = ROOT / "docs" / "pictures" / "rooms.svg"
WIDTH, ROW, GAP, MARGIN, NAME = 760, 34, 6, 12, 150
CONTENTS = {
    "cli": "arguments, calls, output",
    "verbs": "train, predict, evaluate, ...: a file for each verb, which joins the rooms",
    "doors": "the page and the tools for agents, which make jobs of what they are asked",
    "options": "the keywords of every verb: their types, defaults, words and limits",
    "jobs": "commands as processes of their own, which the page and agents start",
    "service": "a DICOM node: receiving, queue, routing, answers",
    "documents": "guidelines, cards and technical files, filled from records",
    "studies": "how many participants a study needs, by design",
    "monitoring": "drift, performance and alerts after go-live: arithmetic alone",
    "federation": "sites that train one model and keep their images: agreement, rounds, figures",
    "runs": "what a run trains, in which order and minutes; its folder and report",
    "scoring": "scores of cases with their parts, groups, tests of the model, lineage",
    "training": "the recipe: steps, checkpoints, searches",
    "reading": "from a path to a data set that was looked through, and folders of results",
    "planning": "decisions about a training, each with its reason",
    "explanation": "what an answer rests on: maps, their tests, what they look at",
    "deidentification": "what may be handed on: attributes, new names and pixels without identity",
    "quality": "facts about data sets, and checks for what is wrong with them",
    "prediction": "one case read, computed, written; where the cases of a cohort are computed",
    "runtime": "models and packages: preprocessing, windows, backends, memory",
    "objectives": "terms that training lowers",
    "tasks": "kinds of problem: targets, losses, decoding, scores",
    "networks": "families of networks",
    "report": "figures, pages, the slice viewer",
    "belief": "how far an answer holds: calibration, sets and intervals, thresholds",
    "evaluation": "metrics and their intervals",
    "registration": "one image laid on another: similarity, linear and deformable transforms",
    "transforms": "geometry and intensity of arrays, augmentation",
    "layouts": "from names in a folder to the cases of a data set",
    "files": "formats of images",
    "values": "geometry, images, cases, decisions, estimates",
    "errors": "errors with a place and a remedy",
}


def layers() -> list[str]:
    """The rooms that exist, the highest first; those in brackets are to come."""
    contracts = tomllib.loads((ROOT / "pyproject.toml").read_text(encoding="utf-8"))["tool"]["importlinter"][
        "contracts"
    ]
    [stack] = [one["layers"] for one in contracts if one["type"] == "layers" and one["containers"] == ["hilum"]]
    return [room for room in stack if not room.startswith("(")]


def drawing() -> str:
    """The picture as SVG: one bar a room; a room imports only from bars below its own."""
    rooms = layers()
    height = 2 * MARGIN + len(rooms) * (ROW + GAP) - GAP
    parts = [
        f'<svg xmlns="http://www.w3.org/2000/svg" viewBox="0 0 {WIDTH} {height}" role="img" '
        'font-family="system-ui, sans-serif">',
        "<title>The rooms of Hilum: each imports only from rooms below it</title>",
        f'<rect width="{WIDTH}" height="{height}" fill="#ffffff"/>',
    ]
    for place, room in enumerate(rooms):
        top = MARGIN + place * (ROW + GAP)
        shade = 92 - round(34 * place / max(1, len(rooms) - 1))
        middle = top + ROW / 2 + 5
        parts += [
            f'<rect x="{MARGIN}" y="{top}" width="{WIDTH - 2 * MARGIN}" height="{ROW}" rx="4" '
            f'fill="hsl(205, 45%, {shade}%)"/>',
            f'<text x="{MARGIN + 12}" y="{middle:g}" font-size="15" font-weight="600" fill="#12222e">{room}</text>',
            f'<text x="{MARGIN + NAME}" y="{middle:g}" font-size="13" fill="#12222e">{escape(CONTENTS[room])}</text>',
        ]
    return "\n".join([*parts, "</svg>"]) + "\n"


if __name__ == "__main__":
    PICTURE.parent.mkdir(parents=True, exist_ok=True)
    PICTURE.write_text(drawing(), encoding="utf-8")
