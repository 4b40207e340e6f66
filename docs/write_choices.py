"""The page of what flags and settings choose among, made of the indexes in the code and what they say of each entry.

python docs/write_choices.py        # writes docs/choices.md
"""

from __future__ import annotations

import ast
import tomllib
from collections.abc import Iterable, Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any

from hilum.explanation.explanation_methods import METHODS
from hilum.layouts.layout import LAYOUTS
from hilum.studies.sizing import DESIGNS
from hilum.tasks.classification.losses import LOSSES as OF_CLASSES
from hilum.tasks.findings.losses import LOSSES as OF_FINDINGS
from hilum.tasks.shared.label_losses import TERMS
from hilum.transforms.corruptions import CORRUPTIONS
from hilum.transforms.operators import reconstruction_methods

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "choices.md"
HEAD = """# What flags and settings choose among

`python docs/write_choices.py` writes this page from the indexes in the code and what they say of each entry.
"""


def page() -> str:
    """The page: a section for each index."""
    losses = ("| loss | what it does | source |", ((name, one.because, one.source) for name, one in OF_CLASSES.items()))
    findings = ((name, one.because, one.source) for name, one in OF_FINDINGS.items())
    terms = ((name, f"{one.counts}: {one.because}", one.source) for name, one in TERMS.items())
    methods = ((one.name, one.words, "torch" if one.module else "") for one in METHODS.values())
    images = ((name, one.words, ", ".join(one.kinds), one.source) for name, one in known_reconstructions().items())
    damages = ((name, one.unit, ", ".join(f"{s:g}" for s in one.strengths)) for name, one in CORRUPTIONS.items())
    return "\n".join(
        [
            HEAD,
            *section("Layouts of data sets", "| layout | what it looks for |", layouts(), flag="--layout"),
            *section("Losses of classes (`task.loss`)", *losses),
            *section("Losses of findings (`task.loss`)", losses[0], findings),
            *section("Terms of the loss of masks (`task.loss`)", losses[0], terms),
            *section(
                "Methods of explanation", "| method | what the map shows | needs |", methods, flag="explain --method"
            ),
            *section("Reconstruction", "| method | what it is | of | source |", images, flag="reconstruct --method"),
            *section(
                "Degraded images", "| name | unit | at severities 1 to 5 |", damages, flag="evaluate --corruptions"
            ),
            *section("Designs of a study", "| design | its inputs | formula, source |", designs(), flag="study size"),
            *section("Documents", "| name | what | edition | source, licence |", documents(), flag="document --for"),
        ]
    )


def section(title: str, heading: str, rows: Iterable[Sequence[str]], flag: str = "") -> Iterator[str]:
    """A heading and a table, whose first column is what is typed.

    flag: where it is typed. Not in the heading: of dashes GitHub and the site make other anchors.
    """
    lines = [heading, "|---" * heading.count(" | ") + "|---|"]
    lines += [f"| {' | '.join([f'`{name}`', *map(cell, others)])} |" for name, *others in rows]
    yield f"## {title}\n"
    if flag:
        yield f"Typed after `{flag}`.\n"
    yield "\n".join(lines) + "\n"


def cell(text: str) -> str:
    """A text on one line of a table."""
    parts = " ".join(text.split()).replace("|", "\\|").split("`")  # every second one is code
    return "`".join(one if n % 2 else one.replace("*", "\\*").replace("<", "&lt;") for n, one in enumerate(parts))


def layouts() -> Iterator[tuple[str, str]]:
    """Each layout with the words of its file."""
    for name in sorted([*LAYOUTS]):
        path = ROOT / "src" / Path(*LAYOUTS[name].partition(":")[0].split(".")).with_suffix(".py")
        yield name, ast.get_docstring(ast.parse(path.read_text(encoding="utf-8"))) or ""


def known_reconstructions() -> Mapping[str, reconstruction_methods.ReconstructionMethod]:
    """The ways from a measurement to an image that need no training."""
    return reconstruction_methods.METHODS


def designs() -> Iterator[tuple[str, str, str]]:
    """Each design of a study with its own inputs."""
    for one in DESIGNS.values():
        inputs = "; ".join(f"{name}: {what.text}{default(what)}" for name, what in one.inputs.items())
        yield one.name, inputs, f"{one.formula}. {one.source}"


def default(what: Any) -> str:
    """The words or the default of an input, in brackets."""
    words = ", ".join(what.words) or ("" if what.default is None else f"{what.default}")
    return f" ({words})" if words else ""


def documents() -> Iterator[tuple[str, str, str, str]]:
    """Each list of items with its edition."""
    for path in sorted((ROOT / "src" / "hilum" / "documents" / "lists").glob("*.toml")):
        stated = tomllib.loads(path.read_text(encoding="utf-8"))
        yield path.stem, stated["title"], stated["edition"], f"{stated['source']}; {stated['licence']}"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
