"""Where this installation came from, its extras, and the line that installs one.

No line asks an index of packages for our own name: until a release stands there, anybody may register it.
"""

from __future__ import annotations

import json
import shlex
import shutil
import sys
from collections.abc import Mapping
from functools import cache
from importlib import metadata
from pathlib import Path
from typing import TYPE_CHECKING, Any
from urllib.parse import unquote, urlsplit

from hilum.lazy import packaging_requirements

if TYPE_CHECKING:
    from packaging.requirements import Requirement

DISTRIBUTION = "hilum"
# {extra: what it opens}.
EXTRAS: Mapping[str, str] = {
    "agents": "mcp",
    "compress": "compress in 8 bits, and by pruning",
    "deidentify": "deidentify with clean-pixels",
    "distributed": "--scheduler of check, plan, train, evaluate and predict",
    "documents": "study, and document with --format docx",
    "federated": "federation, and federate with --transport mtls",
    "foundation": "pretrain with --objective image_text",
    "openvino": "predict with --backend openvino",
    "privacy": "train with --set privacy.epsilon",
    "reconstruction": "reconstruct of raw data of MR scanners (ISMRMRD)",
    "service": "serve, route, audit, backup, restore, change, and feedback, inventory and monitor of a node",
    "studio": "studio",
    "tune": "train with --tune",
    "wsi": "slides in SVS, NDPI, MRXS, SCN and BIF: check, train, predict",
}


def install_line(extra: str = "") -> str:
    """The line that installs an extra: in the checkout, or from the wheel, of which this installation was made.

    Without an extra it installs what the core needs. Where nothing states the origin, or that is gone, the line names
    the packages that are needed.
    """
    brackets = f"[{extra}]" if extra else ""
    origin = _stated_origin()
    url = str(origin.get("url", ""))
    pip = _pip_command()
    path = Path(unquote(urlsplit(url).path)) if url.startswith("file:") else None
    if path is not None and path.is_dir():
        constraints = " --constraint constraints.txt" if (path / "constraints.txt").is_file() else ""
        editable = " --editable" if origin.get("dir_info", {}).get("editable") else ""
        return f"cd {shlex.quote(str(path))} && {pip}{constraints}{editable} '.{brackets}'"
    if path is not None and path.is_file():
        return f"{pip} {shlex.quote(f'{path}{brackets}')}"
    if url and path is None:
        version_control = origin.get("vcs_info")
        address = f"{version_control['vcs']}+{url}@{version_control['commit_id']}" if version_control else url
        return f"{pip} {shlex.quote(f'{DISTRIBUTION}{brackets} @ {address}')}"
    return f"{pip} {shlex.join(needed_packages(extra))}"


def needed_packages(extra: str = "") -> list[str]:
    """What an extra needs beside the core, as "optuna>=4.1"; without one what the core needs."""
    return [_without_marker(one) for one in _requirements() if _is_needed(one, extra)]


def missing_packages(extra: str = "") -> list[str]:
    """Those of `needed_packages` that are not installed, or only in a version that does not do."""
    missing = []
    for requirement in _requirements():
        if not _is_needed(requirement, extra):
            continue
        text = _without_marker(requirement)
        try:
            version = metadata.version(requirement.name)
        except metadata.PackageNotFoundError:
            missing.append(text)
            continue
        if not requirement.specifier.contains(version, prereleases=True):
            missing.append(f"{text} ({version} is installed)")
    return missing


@cache
def _requirements() -> tuple[Requirement, ...]:
    """What our metadata state: the core, and every extra by its marker."""
    return tuple(packaging_requirements.Requirement(text) for text in metadata.requires(DISTRIBUTION) or ())


def _is_needed(requirement: Requirement, extra: str) -> bool:
    """Whether the extra needs it beside the core; without one, whether the core does."""
    is_of_core = requirement.marker is None or requirement.marker.evaluate({"extra": ""})
    if not extra or is_of_core:
        return is_of_core and not extra
    return requirement.marker is not None and requirement.marker.evaluate({"extra": extra})


def _without_marker(requirement: Requirement) -> str:
    """ "psycopg[binary]>=3.2"."""
    brackets = f"[{','.join(sorted(requirement.extras))}]" if requirement.extras else ""
    return f"{requirement.name}{brackets}{requirement.specifier}"


def _stated_origin() -> Mapping[str, Any]:
    """What the installer wrote of where it found the distribution (PEP 610); empty where it wrote nothing."""
    text = metadata.distribution(DISTRIBUTION).read_text("direct_url.json")
    return dict(json.loads(text)) if text else {}


def _pip_command() -> str:
    """ "pip install"; of another environment than the one on the path, with its Python."""
    program = shutil.which("pip")
    is_ours = program is not None and Path(program).parent == Path(sys.executable).parent
    return "pip install" if is_ours else f"{shlex.quote(sys.executable)} -m pip install"
