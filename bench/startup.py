"""From nothing to the first word and to the first result: cold processes of Hilum beside nnU-Net and MONAI.

    python bench/startup.py --record

Each run is a process of its own. The package holds a small U-Net with random weights and a window of 40 x 56 x 40; what
is predicted is one case of the hippocampus, from file to file. The size of the core is that of the files of every
package that Hilum needs; with --install it is installed anew in an environment of its own, and timed.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from importlib.metadata import PackageNotFoundError, distribution
from pathlib import Path
from typing import Any

import pandas as pd
from beside import HILUM, PLACE, ROOT, PeerError, Program, arguments, failures, interleaved, markdown, peer, record
from packaging.requirements import Requirement

from hilum.runtime import Model, Preprocessing, torch_networks
from hilum.runtime.inference import Inference
from hilum.runtime.package import backends, package_writing
from hilum.runtime.package.package_writing import PackageEvidence
from hilum.runtime.torch_networks import Networks, TorchNetwork
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation

# s asked for of Hilum; what is not here is shown for comparison.
ASKED = {
    "hilum --help": 0.4,
    "import hilum": 0.3,
    "hilum networks, first time": 5.0,
    "hilum networks, from its cache": 1.0,
    "hilum predict, onnx": 1.3,
}
BACKENDS = ("onnx", "openvino", "torch")
LABELS = [{"value": 1, "name": "anterior"}, {"value": 2, "name": "posterior"}]


def main() -> None:
    parser = arguments(__doc__, repeats=7)
    parser.add_argument("--install", action="store_true", help="install the core anew, and time it")
    given = parser.parse_args()
    repeats = 2 if given.small else given.repeats
    image = next(iter(sorted((given.data / "hippocampus" / "images").glob("*.nii*"))))
    PLACE.mkdir(exist_ok=True)
    with tempfile.TemporaryDirectory(dir=PLACE) as out:
        words = interleaved([*_words(Path(out)), *([] if given.small else _peers())], repeats, given.threads)
        results = interleaved(_predictions(_package(), image, Path(out)), repeats, given.threads)
    table = pd.concat([words, results], ignore_index=True)
    data: dict[str, Any] = {"runs": table.to_dict("records"), "core": core()}
    text = "\n\n".join([markdown(table), *_verdicts(table), _size(data["core"]), *_installed(given.install, data)])
    text += "".join(f"\n\nFailed: {one}." for one in failures(table))
    print(text)
    if given.record:
        record("startup", "Start-up and footprint", text, data)


def core() -> dict[str, float]:
    """{distribution: MiB of its files}, of Hilum and all that its core needs."""
    found: dict[str, float] = {}
    waiting = ["hilum"]
    while waiting:
        name = waiting.pop()
        if name in found:
            continue
        try:
            one = distribution(name)
        except PackageNotFoundError:  # not needed on this system
            continue
        places = {Path(str(file.locate())) for file in one.files or ()}
        found[name] = sum(place.stat().st_size for place in places if place.is_file()) / 2**20
        for text in one.requires or ():
            requirement = Requirement(text)
            if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
                waiting.append(requirement.name.lower().replace("_", "-"))
    found["hilum"] = sum(file.stat().st_size for file in (ROOT / "src").rglob("*.py")) / 2**20
    return found


def _words(out: Path) -> list[Program]:
    python, listed = sys.executable, f"{shlex.quote(HILUM)} networks"
    return [
        Program("python alone", [python, "-c", "pass"]),
        Program("import hilum", [python, "-c", "import hilum"]),
        Program("hilum --help", [HILUM, "--help"]),
        Program("hilum networks, first time", ["sh", "-c", f'HILUM_CACHE="$(mktemp -d -p {out})" {listed}']),
        Program("hilum networks, from its cache", [HILUM, "networks"]),
        Program("import torch", [python, "-c", "import torch"]),
        Program("import monai", [python, "-c", "import monai"]),
    ]


def _peers() -> list[Program]:
    try:
        folder = peer("nnunet").parent
    except PeerError as error:
        print(f"nnU-Net: not measured, {error}", file=sys.stderr)
        return []
    return [Program("nnUNetv2_predict --help", [str(folder / "nnUNetv2_predict"), "--help"])]


def _predictions(package: Path, image: Path, out: Path) -> list[Program]:
    """A prediction by each backend that is here."""
    found = []
    for name in BACKENDS:
        if (lacking := backends.find_backend(name).lacking("cpu")) is not None:
            print(f"{name}: not measured, {lacking}", file=sys.stderr)
            continue
        words = ["predict", package, image, "--backend", name, "--device", "cpu", "--out", out / name, "--overwrite"]
        found.append(Program(f"hilum predict, {name}", [HILUM, *map(str, words)]))
    return found


def _package() -> Path:
    """The package that is predicted with, made once."""
    folder = PLACE / "work" / "startup-package"
    if (folder / "manifest.json").is_file():
        return folder
    task = task_catalogue.build_task({"name": "segmentation", "labels": LABELS, "loss": "dice+ce", "tolerance": 2.0})
    preparation = Preprocessing(3, ("MR",), (Normalisation("zscore"),), spacing=(1.0, 1.0, 1.0), modality="MR")
    size = {"width": 16, "widest": 128, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
    network = {"name": "unet", "channels": 1, "spatial_dims": 3, "size": size}
    run = TorchNetwork(torch_networks.build_module(task, network).eval())
    folder.mkdir(parents=True)
    package_writing.write_package(
        Model(task, preparation, Inference((40, 56, 40)), Networks(run, network)), PackageEvidence(), "startup", folder
    )
    return folder


def _verdicts(table: pd.DataFrame) -> list[str]:
    """Each figure that was asked for, beside what was reached."""
    found = []
    for name, asked in ASKED.items():
        reached = table.loc[(table["program"] == name) & (table["problem"] == ""), "seconds"].median()
        found.append(f"{name}: {reached:.2f} s (asked: under {asked:g} s).")
    return found


def _size(found: dict[str, float]) -> str:
    largest = sorted(found, key=lambda name: -found[name])[:6]
    named = ", ".join(f"{name} {found[name]:.0f}" for name in largest)
    return f"Core: {len(found)} packages, {sum(found.values()):.0f} MiB ({named})."


def _installed(wanted: bool, data: dict[str, Any]) -> list[str]:
    """How long it takes to install the core into an empty environment; that depends on the network."""
    if not wanted:
        return []
    with tempfile.TemporaryDirectory(dir=PLACE) as room:
        began = time.perf_counter()
        subprocess.run([sys.executable, "-m", "venv", room], check=True)
        pip = [str(Path(room) / "bin" / "python"), "-m", "pip", "install", "-q", "--disable-pip-version-check"]
        subprocess.run([*pip, "--constraint", str(ROOT / "constraints.txt"), str(ROOT)], check=True)
        data["install_seconds"] = time.perf_counter() - began
    return [
        f"Installed into an empty environment in {data['install_seconds']:.0f} s, downloads of this network included."
    ]


if __name__ == "__main__":
    main()
