"""The page of every family of networks, made of the index and of the docstrings of what builds them.

python docs/write_networks.py        # writes docs/networks.md
"""

from __future__ import annotations

import inspect
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import write_settings

from hilum.networks import factory
from hilum.networks.network_family import OWN, Family
from hilum.verbs.networks import ANSWERS, describe_networks

PAGE = Path(__file__).parent / "networks.md"
HEAD = """# Networks

`python docs/write_networks.py` writes this page from the index of families and their docstrings. The plan chooses a
family and its size; `--set network.name=NAME` names another, and `--set "network.size={{width: 24}}"` sets what the
lists below name. Settings that are left out have the default of the family, and wrong ones are refused.
[Which network should I use?](which-network.md) says what the plan takes and what was compared, and
[the matrix](networks-matrix.md) which combinations train, export and can be packaged. Parameters are those for one
channel of an image of 256 x 256 and of 64 x 64 x 64 on a processor.

| family | answers for | axes | parameters | covariates by | paper |
|---|---|---|---|---|---|
{rows}
"""
# What a task, the data or the plan decide.
GIVEN = frozenset(
    {"dense", "vectors", "context", "fusion", "channels", "spatial_dims", "size", "of_resnet", "settings_of"}
)


def page() -> str:
    """The table of families, then the settings of each: families of one class have theirs together."""
    sizes = dict[str, list[str]]()
    for one in describe_networks().members:
        if one.axes > 1:
            sizes.setdefault(one.name, []).append(f"{one.parameters / 1e6:.1f} M")
    families = {name: factory.family_of(name) for name in factory.family_names()}
    rows = "\n".join(row(name, family, sizes.get(name, [])) for name, family in families.items())
    together = dict[Any, list[str]]()
    for name, family in families.items():
        together.setdefault(family.build, []).append(name)
    sections = (section(build, names, families) for build, names in together.items())
    return "\n\n".join([HEAD.format(rows=rows).rstrip(), *sections]) + "\n"


def section(build: Any, names: list[str], families: Mapping[str, Family]) -> str:
    """Families that one class or function builds: what it says of itself, what each sets, and the settings."""
    presets = [f"`{name}` sets {named(families[name].preset)}" for name in names if families[name].preset]
    parameters = inspect.signature(build).parameters
    is_open = any(one.kind is one.VAR_KEYWORD for one in parameters.values())
    known = write_settings.named_lines(build.__doc__ or "", None if is_open else parameters)
    known = {name: text for name, text in known.items() if name not in GIVEN}
    others = [f"`{name}`" for name in parameters if name not in {*GIVEN, *known, "size", "settings"}]
    others += [f"those that `src/{build.__module__.replace('.', '/')}.py` describes"] if is_open else []
    lines = [f"## {', '.join(names)}", f"{'. '.join(presets)}." if presets else ""]
    lines.append("\n".join(f"- `{name}`: {write_settings.escape(text)}" for name, text in known.items()))
    lines.append(f"Further settings: {', '.join(others)}." if others else "")
    return "\n\n".join(one for one in lines if one)


def named(preset: Mapping[str, Any]) -> str:
    """Settings with their values, in words."""
    return ", ".join(f"`{name}: {value}`" for name, value in preset.items())


def row(name: str, family: Family, sizes: list[str]) -> str:
    """A family as a line of the table."""
    answers = ", ".join(sorted(ANSWERS[one] for one in family.answers))
    ways = ", ".join("its own way" if one == OWN else one for one in family.takes_context) or "–"
    cells = (f"`{name}`", answers, ", ".join(map(str, family.axes)), ", ".join(sizes), ways, family.paper)
    return f"| {' | '.join(cells)} |"


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
