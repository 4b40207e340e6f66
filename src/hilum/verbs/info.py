"""`info`: what can be asked for, read from the list that this release states: it answers before anything is imported.

`hilum.verbs.askable` gathers the list from the indexes.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import hilum
from hilum import keywords, plugins
from hilum.options.machine import InfoOptions

if TYPE_CHECKING:
    from hilum.verbs.askable import AskableLists, InfoRecord

LISTED = Path(__file__).with_name("askable.json")
# {group of entry points: the list to which other packages add by it}.
ADDED = {
    "hilum.aggregations": "aggregations",
    "hilum.backends": "backends",
    "hilum.formats": "formats",
    "hilum.networks": "networks",
    "hilum.objectives": "objectives",
    "hilum.references": "references",
    "hilum.tasks": "kinds_of_problem",
}
# Lists that the words name in full, by what they are called there.
SHOWN = {
    "kinds_of_problem": "kinds of problem",
    "networks": "networks",
    "objectives": "objectives",
    "layouts": "layouts of data sets",
    "formats": "file formats",
    "backends": "backends",
    "documents": "documents",
}


@dataclass(frozen=True)
class Askable:
    """What can be asked for.

    listed: what this release states
    added:  {list: names that other installed packages add to it}
    """

    listed: AskableLists
    added: dict[str, list[str]]

    def as_record(self) -> InfoRecord:
        """The record for `--json`."""
        return {"schema": "hilum.info", "version": 1, "release": hilum.__version__, **self.listed, "added": self.added}

    def __str__(self) -> str:
        verbs = self.listed["verbs"]
        lines = [f"Hilum {hilum.__version__}", f"{len(verbs)} commands: {', '.join(verbs)}"]
        names_by_list: Mapping[str, list[str]] = {key: list(self.listed[key]) for key in SHOWN}  # type: ignore[literal-required]
        for key, words in SHOWN.items():
            lines.append(f"{len(names_by_list[key])} {words}: {', '.join(names_by_list[key])}")
        for key, names in self.added.items():
            lines.append(f"{SHOWN.get(key, key)} of other packages: {', '.join(names)}")
        lines.append("Options with their defaults, and the other lists: hilum info --json. This machine: hilum doctor")
        return "\n".join(lines)

    __repr__ = __str__


@keywords.takes(InfoOptions)
def info(options: InfoOptions) -> Askable:
    """What can be asked for: commands with their options, kinds of problem, networks, formats, layouts."""
    listed: AskableLists = json.loads(LISTED.read_text(encoding="utf-8"))
    names_by_list = {ADDED[group]: sorted(plugins.entry_points_of(group)) for group in ADDED}
    return Askable(listed, {key: names for key, names in names_by_list.items() if names})
