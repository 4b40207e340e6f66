from __future__ import annotations

import json
import re
import shutil
from pathlib import Path
from typing import Any

import nibabel
import numpy as np
import pytest
import torch
from monai.bundle import ConfigParser
from PIL import Image as Picture
from ruamel.yaml import YAML

import hilum
import real_data
from foreign_bundles import AFTER, BEFORE, NETWORK, bundle
from hilum.errors import HilumError, IntegrityError, UsageError

PAGE = Path(__file__).parents[3] / "bench" / "findings" / "monai-zoo.md"
SOFTMAX, INVERTED, ARGMAX = AFTER[:3]
RESIZED = {"_target_": "Resized", "keys": "image", "spatial_size": [16, 16, 8]}
ONE_MAP = "$lambda x: torch.where(x[[2]] > 0, 4, torch.where(x[[0]] > 0, 1, torch.where(x[[1]] > 0, 2, 0)))"
SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
ABOVE = {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}
WINDOW = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], "overlap": 0.5}
READING = BEFORE[:2]
GRADES = {"_target_": "ScaleIntensityRanged", "keys": "image", "a_min": 0, "a_max": 200, "b_min": 0, "b_max": 1}


def composed(*steps: dict[str, Any]) -> dict[str, Any]:
    return {"_target_": "Compose", "transforms": list(steps)}


def function(text: str) -> dict[str, Any]:
    return {"_target_": "Lambdad", "keys": "pred", "func": text}


def by_monai(folder: Path, file: Path) -> np.ndarray:
    """The outcome of the bundle's own configuration under MONAI's ConfigParser, without what saves."""
    [path] = folder.glob("configs/inference.*")
    content = YAML(typ="safe", pure=True).load(path.read_text())  # JSON is YAML too
    steps = content["postprocessing"]["transforms"]
    content["postprocessing"]["transforms"] = [one for one in steps if one["_target_"] != "SaveImaged"]
    parser = ConfigParser(content | {"device": "cpu"})
    network = parser.get_parsed_content("network_def").eval()
    network.load_state_dict(torch.load(folder / "models" / "model.pt", weights_only=True))
    case = parser.get_parsed_content("preprocessing")({"image": str(file)})
    with torch.inference_mode():
        case["pred"] = parser.get_parsed_content("inferer")(case["image"][None], network)[0]
    return np.asarray(parser.get_parsed_content("postprocessing")(case)["pred"])


def scan(folder: Path, shape: tuple[int, ...] = (20, 22, 12)) -> Path:
    values = np.random.default_rng(1).normal(100, 60, [n // 2 for n in shape]).repeat(2, 0).repeat(2, 1).repeat(2, 2)
    affine = np.array([[0, -1.2, 0, 5], [1, 0, 0, 6], [0, 0, -2.5, 7], [0, 0, 0, 1]])
    nibabel.save(nibabel.Nifti1Image(values.astype(np.float32), affine), folder / "scan.nii.gz")
    return folder / "scan.nii.gz"


VARIANTS: dict[str, tuple[list[dict[str, Any]], dict[str, Any]]] = {
    "expressions": (
        AFTER[:3],
        {
            "imports": ["$import torch"],
            "edge": 16,
            "fine": "$@edge > 8 and not False",
            "spacing": "$[1.5, 1.5, 2.0] if @fine else [3.0] * 3",
            "first": [*READING, {**BEFORE[3], "keys": "image", "pixdim": "@spacing", "mode": "bilinear"}],
            "then": [GRADES, {"_target_": "CastToTyped", "keys": "image", "dtype": "$torch.float32"}],
            "preprocessing": {"_target_": "Compose", "transforms": "$@first + @then"},
            "inferer": {**WINDOW, "roi_size": "$[@edge] * 3", "overlap": "$1 - float(@edge // 2) / @edge"},
        },
    ),
    "edges go on": ([SOFTMAX, INVERTED, ARGMAX], {"inferer": {**WINDOW, "padding_mode": "replicate"}}),
    "a value beyond": ([SOFTMAX, INVERTED, ARGMAX], {"inferer": {**WINDOW, "cval": -1.5}}),
    "labels go back": ([SOFTMAX, ARGMAX, {**INVERTED, "nearest_interp": True}], {}),
    "outputs go back": ([INVERTED, {**ARGMAX, "to_onehot": 3}, function("$lambda x: x[1:]")], {}),
    "relabelled": ([*AFTER[:3], function("$lambda x: (x > 1) * 5 + (x == 1) * 7")], {}),
    "joined": ([*AFTER[:3], function("$lambda x: x > 0")], {}),
    "regions": (
        [SIGMOID, INVERTED, ABOVE, function(ONE_MAP)],
        {"imports": ["$import torch"]},
    ),
    "slices": (
        AFTER[:3],
        {
            "network_def": {**NETWORK, "spatial_dims": 2},
            "inferer": {"_target_": "SliceInferer", "roi_size": [24, 16], "spatial_dim": 2},
        },
    ),
    "whole": (
        AFTER[:3],
        {
            "preprocessing": composed(*READING, RESIZED, GRADES),
            "inferer": {"_target_": "SimpleInferer"},
        },
    ),
}  # fmt: skip


@pytest.mark.parametrize("name", VARIANTS)
def test_a_bundle_says_what_its_configuration_says_in_monai(tmp_path, name):
    after, changes = VARIANTS[name]
    steps = composed(
        *READING, {**BEFORE[2], "keys": "image"}, {**BEFORE[3], "keys": "image", "mode": "bilinear"}, GRADES
    )
    folder = bundle(tmp_path / "bundle", after, **{"preprocessing": steps, **changes})
    if name == "slices":
        parser = ConfigParser({"network_def": {**NETWORK, "spatial_dims": 2}, "units": 1})
        torch.manual_seed(0)
        torch.save(parser.get_parsed_content("network_def").state_dict(), folder / "models" / "model.pt")
    file = scan(tmp_path)
    expected = by_monai(folder, file)
    if name == "outputs go back":
        expected = (expected * np.array([1, 2])[:, None, None, None]).max(axis=0, keepdims=True)
    found = np.asarray(hilum.load(folder, "cpu").predict(file).data)
    assert len(np.unique(expected)) > 1
    assert (found == expected[0]).mean() > 0.9995


def test_what_a_bundle_saves_and_where_is_nobodys_concern(tmp_path):
    plain = bundle(tmp_path / "plain", [*AFTER[:3], {**AFTER[3], "output_dir": "eval"}])
    saving = {**AFTER[3], "output_dir": "@output_dir", "writer": "$scripts.Writer()"}
    folder = bundle(tmp_path / "zoo", [*AFTER[:3], saving], output_dir="$open(@bundle_root + '/eval')", bundle_root=".")
    (folder / "scripts").mkdir()
    (folder / "scripts" / "__init__.py").write_text("raise SystemExit\n")
    answers = [np.asarray(hilum.load(one, "cpu").predict(scan(tmp_path)).data) for one in (plain, folder)]
    assert np.array_equal(*answers)


@pytest.mark.parametrize(
    ("activation", "kind"), [(SOFTMAX, "classification"), (SIGMOID, "findings"), (ARGMAX, "classification")]
)
def test_a_network_of_whole_pictures_gives_the_probabilities_of_monai(tmp_path, activation, kind):
    network = {"_target_": "DenseNet", "spatial_dims": 2, "in_channels": 3, "out_channels": 3, "pretrained": True}
    network = {key: one for key, one in network.items() if key != "pretrained"} | {"block_config": [1, 1]}
    steps = composed(*READING, {"_target_": "Resized", "keys": "image", "spatial_size": [24, 16]}, GRADES)
    changes = {"network_def": network, "preprocessing": steps, "inferer": {"_target_": "SimpleInferer"}}
    folder = bundle(tmp_path / "bundle", [activation], **changes)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["inputs"]["image"] = {"num_channels": 3}
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    module = ConfigParser({"network_def": network}).get_parsed_content("network_def")
    torch.save(module.state_dict(), folder / "models" / "model.pt")
    pixels = np.random.default_rng(3).integers(0, 255, (40, 30, 3), np.uint8)
    Picture.fromarray(pixels).save(tmp_path / "picture.png")
    model = hilum.load(folder, "cpu")
    assert model.task.name == kind
    found = model.predict(tmp_path / "picture.png").probabilities
    expected = by_monai(folder, tmp_path / "picture.png").ravel()
    assert list(found) == ["background", "liver", "tumour"]
    if activation is ARGMAX:
        assert np.argmax(list(found.values())) == expected[0]
    else:
        assert np.allclose(list(found.values()), expected, atol=1e-5)


def test_an_image_of_another_size_than_a_network_sees_whole_is_refused_with_both(tmp_path):
    folder = bundle(
        tmp_path / "bundle", AFTER[:3], inferer={"_target_": "SimpleInferer"}, preprocessing=composed(GRADES)
    )
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["inputs"]["image"]["spatial_shape"] = [16, 16, 8]
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(HilumError, match=r"has 20 x 22 x 12 voxels .* sees images whole, of 16 x 16 x 8"):
        hilum.load(folder, "cpu").predict(scan(tmp_path))


@pytest.mark.parametrize(
    ("changes", "error", "says"),
    [
        ({"handlers": [{"_target_": "CheckpointLoader", "load_path": "/etc/hostname"}]}, IntegrityError, "outside"),
        ({"loader": {"_target_": "CheckpointLoader", "load_path": "../x"}}, IntegrityError, "outside"),
        ({"loader": {"_target_": "CheckpointLoader", "load_path": "models/x.pt"}}, UsageError, "has no models/x.pt"),
        ({"postprocessing": composed(*AFTER[:3], function("$lambda x: 3 - x"))}, UsageError, "no label map"),
        ({"postprocessing": composed(*AFTER[:3], function("$lambda x: x.numpy()"))}, UsageError, r"x\.numpy\(\)"),
        ({"postprocessing": composed(*AFTER[:3], function("$lambda x: x / 2"))}, UsageError, "no label map"),
        ({"postprocessing": composed({"_target_": "scripts.post.Merge", "keys": "pred"})}, UsageError, "of its own"),
        ({"inferer": {"_target_": "scripts.inferer.Inferer"}}, UsageError, "of its own"),
        ({"preprocessing": composed({**READING[0], "reader": "scripts.Reader"})}, UsageError, "of its own"),
        ({"preprocessing": {"_target_": "Compose", "transforms": [None]}}, UsageError, "a step without a class"),
        ({"units": "$torch.load('/etc/hostname')"}, IntegrityError, "outside the bundle"),
    ],
)  # fmt: skip
def test_what_leads_out_of_a_bundle_or_cannot_be_followed_is_refused_by_name(tmp_path, changes, error, says):
    with pytest.raises(error, match=says):
        hilum.load(bundle(tmp_path / "bundle", **changes), "cpu")


def rows() -> dict[str, tuple[str, str]]:
    """{bundle: (read or refused, proof or reason)} as the page states them."""
    found = re.findall(r"^\| `(\w+)` \| (\w+) \| (.*) \|$", PAGE.read_text(encoding="utf-8"), flags=re.M)
    return {name: (state, words) for name, state, words in found}


@pytest.mark.parametrize(("folder", "counts"), real_data.facts(shipped=(22, 9), corpus=(31, 12)))
def test_the_page_says_of_each_published_bundle_whether_it_is_read_and_why_not(tmp_path, folder, counts):
    zoo = folder / "monai_zoo"
    here = sorted(one.name for one in zoo.iterdir() if one.is_dir())
    bundles, fewest_read = counts
    assert len(here) == bundles
    assert {*here} <= rows().keys()
    assert len(rows()) == 31
    for name in here:
        shutil.copytree(zoo / name, tmp_path / name, copy_function=shutil.copyfile)
        with pytest.raises(HilumError) as refused:
            hilum.load(tmp_path / name, "cpu")
        # Without weights, which are not part of the zoo's repository, one that is read lacks nothing else.
        state, words = rows()[name]
        assert (state == "read") == (re.match(r"has no models/\w+\.pt$", refused.value.problem) is not None), name
        assert state == "read" or words == refused.value.problem, name
    assert sum(rows()[name][0] == "read" for name in here) >= fewest_read
