"""The page of the verbs in Python, made of the names of the front door; mkdocstrings fills in what they say.

python docs/write_api.py        # writes docs/api/verbs.md
"""

from __future__ import annotations

import ast
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).parents[1]
PAGE = Path(__file__).parent / "api" / "verbs.md"
HEAD = """# Verbs

`python docs/write_api.py` writes this page from the names of `hilum`; [From Python](python.md) says how to call
them.
"""
# What verbs return or take, where it is in another room.
BESIDE = {
    "hilum.planning.plan_result": ["PlannedTraining"],
    "hilum.scoring.model_comparison": ["Comparison"],
    "hilum.studies.sizing": ["StudySize", "SimulatedShare"],
    "hilum.studies.treatment_effects": ["cluster_test"],
}


def page() -> str:
    """The page: each module of a verb with its functions of the front door and its public classes."""
    found = defaultdict[str, list[str]](list)
    for node in ast.walk(tree_of(ROOT / "src" / "hilum" / "__init__.py")):
        if isinstance(node, ast.ImportFrom) and (node.module or "").startswith("hilum.verbs"):
            found[str(node.module)] += [one.name for one in node.names]
    for module, names in found.items():
        tree = tree_of((ROOT / "src" / Path(*module.split("."))).with_suffix(".py"))
        classes = [one.name for one in tree.body if isinstance(one, ast.ClassDef) and one.name[0] != "_"]
        names += [one for one in classes if one not in names]
    blocks = (
        f"::: {module}\n    options: {{members: [{', '.join(names)}]}}\n"
        for module, names in {**found, **BESIDE}.items()
    )
    return "\n".join([HEAD, *blocks])


def tree_of(path: Path) -> ast.Module:
    """The parsed text of a module."""
    return ast.parse(path.read_text(encoding="utf-8"))


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
