"""The published bundles of MONAI's model zoo: which are read, and whether they say what MONAI itself says.

    python bench/monai_zoo.py                                  # all of them; some minutes on one core
    python bench/monai_zoo.py --bundle spleen_ct_segmentation
    python bench/monai_zoo.py --record                         # also writes the table of docs/monai-zoo.md

The configurations are those of October 2024 (`../shared/data/monai_zoo`). Weights are no part of them: MONAI makes the
network that a configuration describes, with random weights, and both sides predict the same made-up image with it.
MONAI's side are its own ConfigParser, transforms, inferer and network in the MONAI that is ours. Windows of more than
64 voxels along an axis are cut to that on both sides, so that a processor can do it; `--published` leaves them.
"""

from __future__ import annotations

import argparse
import json
import re
import shutil
import tempfile
import warnings
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import torch
from beside import DATA, ROOT
from monai.bundle import ConfigParser
from PIL import Image as Picture
from ruamel.yaml import YAML

import isocenter
from isocenter.errors import IsocenterError
from isocenter.values import Image

ZOO, PAGE = DATA / "monai_zoo", ROOT / "docs" / "monai-zoo.md"
LARGEST = 64
# Arguments that the MONAI of today no longer takes, and that changed nothing.
GONE = {"SwinUNETR": ("img_size",)}
SAVING = ("SaveImaged", "SaveClassificationd")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--bundle", action="append", help="one or more; by default all")
    parser.add_argument("--published", action="store_true", help="windows as large as published")
    parser.add_argument("--record", action="store_true", help="write the table of the page")
    asked = parser.parse_args()
    warnings.simplefilter("ignore")
    rows = {}
    for name in asked.bundle or names():
        with tempfile.TemporaryDirectory() as place:
            rows[name] = tried(name, Path(place), None if asked.published else LARGEST)
        print(f"{name}: {rows[name]}", flush=True)
    read = sum(row.startswith("read") for row in rows.values())
    print(f"{read} of {len(rows)} are read")
    if asked.record:
        PAGE.write_text(with_table(PAGE.read_text(encoding="utf-8"), rows), encoding="utf-8")


def names() -> list[str]:
    """The bundles of the zoo."""
    return sorted(folder.name for folder in ZOO.iterdir() if folder.is_dir())


def with_table(page: str, rows: dict[str, str]) -> str:
    """The page with a row for each bundle between its two marks."""
    lines = [f"| `{name}` | {row.partition(': ')[0]} | {row.partition(': ')[2]} |" for name, row in rows.items()]
    table = "\n".join(["| bundle | | proof, or why not |", "|---|---|---|", *lines])
    return re.sub(r"(<!-- zoo -->\n).*(\n<!-- /zoo -->)", lambda marks: marks[1] + table + marks[2], page, flags=re.S)


def tried(name: str, place: Path, largest: int | None) -> str:
    """What comes of a bundle: "read: ..." with the agreement of both sides, or "refused: ..." with the reason."""
    folder = copied(name, place, largest)
    try:
        model = isocenter.load(folder, "cpu")
    except IsocenterError as error:
        if "has no models" not in error.problem:
            return f"refused: {error.problem}"
    parser = parsed(folder, name)
    torch.manual_seed(0)
    network = parser.get_parsed_content("network_def").eval()
    written(folder, network.state_dict())
    try:
        model = isocenter.load(folder, "cpu")
    except IsocenterError as error:
        return f"refused: {error.problem}"
    image, files = made_up(json.loads((folder / "configs" / "metadata.json").read_text()), model, parser, place)
    theirs = by_monai(parser, network, files)
    written(folder, network.state_dict())
    return f"read: {agreement(isocenter.load(folder, 'cpu').predict(image), theirs, model)}"


def copied(name: str, place: Path, largest: int | None) -> Path:
    """A bundle as its maker published it, but for its weights and the size of its windows."""
    folder = place / name
    shutil.copytree(ZOO / name, folder)
    folder.chmod(0o755)
    for one in folder.rglob("*"):
        one.chmod(0o755)
    (folder / "models").mkdir()
    (folder / "scripts").mkdir()  # as most have; nothing looks into it
    (folder / "scripts" / "__init__.py").write_text("raise SystemExit('a script was run')\n")
    for file in folder.glob("configs/inference.*"):
        config = loaded(file)
        inferer = config.get("inferer")
        if largest is not None and isinstance(inferer, dict) and isinstance(inferer.get("roi_size"), list):
            inferer["roi_size"] = [min(size, largest) for size in inferer["roi_size"]]
        file.unlink()
        file.with_suffix(".json").write_text(json.dumps(config)) if largest is not None else None
    if not list(folder.glob("configs/inference.*")):
        for file in ZOO.glob(f"{name}/configs/inference.*"):
            shutil.copyfile(file, folder / "configs" / file.name)
    return folder


def loaded(file: Path) -> Any:
    text = file.read_text(encoding="utf-8")
    return json.loads(text) if file.suffix == ".json" else YAML(typ="safe", pure=True).load(text)


def parsed(folder: Path, name: str) -> ConfigParser:
    """MONAI's own reading of the configuration, without what saves, and with an architecture where one was searched."""
    [file] = folder.glob("configs/inference.*")
    config = loaded(file)
    config["bundle_root"] = str(folder)
    config.pop("device", None)
    config["device"] = "$torch.device('cpu')"
    network, post = config["network_def"], config["postprocessing"]
    for key in GONE.get(str(network["_target_"]).rpartition(".")[2], ()):
        network.pop(key, None)
    if network.get("pretrained"):  # published weights of torchvision are overwritten, and change how it sees its input
        network["pretrained"] = False
        if network.get("model_name") == "inception_v3":
            network["transform_input"] = True
    for step in [*config.get("transforms", []), *config["preprocessing"]["transforms"]]:
        if isinstance(step, dict) and step.get("reader") == "ITKReader":
            del step["reader"]  # of NIfTI each reader gives the same
    if "LoadImaged" not in str(config["preprocessing"]) + str(config.get("transforms")):  # tiles of a slide come loaded
        reading = {"_target_": "LoadImaged", "keys": "image", "reverse_indexing": False, "ensure_channel_first": True}
        config["preprocessing"]["transforms"].insert(0, reading)
    post["transforms"] = [one for one in post["transforms"] if one["_target_"] not in SAVING]
    if "arch_ckpt" in config:
        blocks, depths = config["dints_space"]["num_blocks"], config["dints_space"]["num_depths"]
        random = np.random.default_rng(0)
        code = {
            "node_a": np.ones((blocks + 1, depths)),
            "arch_code_a": np.ones((blocks, 3 * depths - 2)),
            "arch_code_c": random.integers(0, 5, (blocks, 3 * depths - 2)),
        }
        torch.save(code, folder / "models" / "search_code_18590.pt")
        config["arch_ckpt"] = "$torch.load(@arch_ckpt_path, weights_only=False)"
        config["dints_space"]["device"] = "cpu"
    parser = ConfigParser(config)
    parser.read_meta(str(folder / "configs" / "metadata.json"))
    return parser


def written(folder: Path, weights: dict[str, Any]) -> None:
    """Random weights under every name that the bundle may read them by."""
    for name in ("model.pt", "dynunet_FT.pt", "model_lowres.pt"):
        torch.save(weights, folder / "models" / name)


def made_up(metadata: Any, model: isocenter.Model, parser: ConfigParser, place: Path) -> tuple[Any, list[str]]:
    """An image of the kind that a bundle sees, as ours and as files for MONAI."""
    random, channels = np.random.default_rng(1), len(model.preprocessing.channels)
    whole = getattr(model.preprocessing, "whole", False)
    if model.preprocessing.ndim == 2:
        shape = model.preprocessing.patch if whole else (70, 60)
        pixels = random.integers(0, 255, (shape[1] // 4, shape[0] // 4, channels), np.uint8).repeat(4, 0).repeat(4, 1)
        pixels = np.pad(pixels, [(0, shape[1] - len(pixels)), (0, shape[0] - pixels.shape[1]), (0, 0)], mode="edge")
        Picture.fromarray(pixels if channels == 3 else pixels[..., 0]).save(place / "image.png")
        return isocenter.read(place / "image.png"), [str(place / "image.png")]
    shape = model.preprocessing.patch if whole else (70, 64, 30)
    spacing = (1, 1, 1) if whole else (0.9, 1.1, 2.5)
    if model.preprocessing.returned == "labels":  # of numbers between labels nobody knows what they mean
        steps = parser["preprocessing#transforms"]
        spacing = next(tuple(one["pixdim"]) for one in steps if one["_target_"] == "Spacingd")
    modality = metadata["network_data_format"]["inputs"]["image"].get("modality", "MR")
    files, parts = [], []
    for number in range(channels):
        noise = random.normal(size=[n // 3 + 1 for n in shape]).repeat(3, 0).repeat(3, 1).repeat(3, 2)
        values = noise[tuple(slice(n) for n in shape)] * 120 + (40 if modality == "CT" else 600)
        values[: shape[0] // 8] = -1000 if modality == "CT" else 0
        affine = np.diag([-spacing[0], -spacing[1], spacing[2], 1.0])
        nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), place / f"image_{number:04}.nii.gz")
        files.append(str(place / f"image_{number:04}.nii.gz"))
        parts.append(isocenter.read(files[-1]))
    if channels == 1:
        return parts[0], files
    data = np.concatenate([np.asarray(one.data) for one in parts])
    return Image(data, parts[0].geometry, channels=model.preprocessing.channels), files


def by_monai(parser: ConfigParser, network: torch.nn.Module, files: list[str]) -> np.ndarray:
    """What MONAI's own transforms and inferer say of the files, once no output wins everywhere."""
    before, inferer = parser.get_parsed_content("preprocessing"), parser.get_parsed_content("inferer")
    case = before({"image": files[0] if len(files) == 1 else files})
    with torch.inference_mode():
        first = inferer(case["image"][None], network)
        first = (first[0] if isinstance(first, list | tuple) else first)[0].flatten(1 if first[0].ndim > 2 else 0)
        biases = [one for one in network.parameters() if one.shape == (len(first),)]
        if biases and first.ndim > 1:
            biases[-1] -= first.float().mean(dim=-1)
        outputs = inferer(case["image"][None], network)
    case["pred"] = (outputs[0] if isinstance(outputs, list | tuple) else outputs)[0]
    if case["pred"].numel() == len(case["pred"]):  # of the whole image
        return np.asarray(case["pred"]).ravel()
    return np.asarray(parser.get_parsed_content("postprocessing")(case)["pred"])


def agreement(ours: Any, theirs: np.ndarray, model: isocenter.Model) -> str:
    """The share of equal voxels, or the largest difference of a probability."""
    if ours.data is None:
        chances = np.array(list(ours.probabilities.values()))
        logits = torch.from_numpy(theirs)
        expected = (logits.softmax(0) if model.task.name == "classification" else logits.sigmoid()).numpy()
        return f"{len(chances)} probabilities, largest difference {np.abs(chances - expected).max():.1g}"
    found = np.asarray(ours.data)
    if len(theirs) > 1:  # a channel for each region, written in its order
        theirs = np.max(theirs * np.arange(1, len(theirs) + 1)[:, *[None] * found.ndim], axis=0, keepdims=True)
    expected = theirs[0] if ours.geometry.ndim == 3 else theirs[0].T
    fractions = np.mean(expected != np.rint(expected))
    same = (found == np.rint(expected)).mean()
    labels = len(np.unique(found))
    also = (
        f"; MONAI writes fractions between labels in {fractions:.1%} of the voxels, rounded here" if fractions else ""
    )
    return f"{same:.3%} of {found.size:,} voxels have the same label ({labels} labels){also}"


if __name__ == "__main__":
    main()
