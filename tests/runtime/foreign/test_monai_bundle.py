from __future__ import annotations

import json
import os
from pathlib import Path
from typing import Any

import monai.transforms as mt
import numpy as np
import pytest
import torch
from monai.data import MetaTensor
from monai.inferers import SlidingWindowInferer
from monai.networks.nets import UNet
from PIL import Image as Picture
from scipy import ndimage

import hilum
from foreign_bundles import AFTER, NETWORK, bundle, image, network
from hilum.errors import DatasetError, FormatError, GeometryError, IntegrityError, UsageError
from hilum.runtime.foreign import monai_transforms
from hilum.runtime.foreign.monai_transforms import MonaiTransforms
from hilum.values import Geometry, Image

SIGMOID = {"_target_": "Activationsd", "keys": "pred", "sigmoid": True}
FLAT = {**NETWORK, "spatial_dims": 2}


def of_pictures(folder: Path, steps: list[dict[str, Any]], **load: Any) -> Path:
    """A bundle for pictures, whose network tells a picture from its mirror image."""
    before = [{"_target_": "LoadImaged", "keys": "image", **load}, {"_target_": "EnsureChannelFirstd", "keys": "image"}]
    before += [*steps, {"_target_": "ScaleIntensityd", "keys": "image"}]
    window = {"_target_": "SlidingWindowInferer", "roi_size": [40, 30]}
    steps_before = {"_target_": "Compose", "transforms": before}
    made = bundle(folder, network_def=FLAT, preprocessing=steps_before, inferer=window)
    torch.save(flat().state_dict(), made / "models" / "model.pt")
    return made


def flat() -> torch.nn.Module:
    torch.manual_seed(0)
    return UNet(2, 1, 3, (4, 8), (2,), num_res_units=1, norm="instance").eval()


def by_monai(subject: Image, argmax: bool = True) -> np.ndarray:
    """The bundle's steps, made of MONAI's own classes by hand."""
    before = mt.Compose(
        [
            mt.Orientationd(keys=["image"], axcodes="RAS"),
            mt.Spacingd(keys=["image"], pixdim=[1.5, 1.5, 2.0], mode="bilinear"),
            mt.ScaleIntensityRanged(keys=["image"], a_min=0, a_max=200, b_min=0, b_max=1, clip=True),
        ]
    )
    case = before({"image": MetaTensor(torch.tensor(subject.data), affine=torch.tensor(subject.geometry.affine))})
    inferer = SlidingWindowInferer([16, 16, 16], overlap=0.5, mode="gaussian")
    with torch.inference_mode():
        case["pred"] = inferer(case["image"][None], network())[0]
    after = [
        mt.Activationsd(keys="pred", softmax=argmax, sigmoid=not argmax),
        mt.Invertd(keys="pred", transform=before, orig_keys="image", nearest_interp=False),
        mt.AsDiscreted(keys="pred", argmax=argmax, threshold=None if argmax else 0.5),
    ]
    return np.asarray(mt.Compose(after)(case)["pred"])


def test_a_bundle_says_what_it_says_in_monai(tmp_path):
    model = hilum.load(bundle(tmp_path), "cpu")
    assert [label.name for label in model.task.labels] == ["liver", "tumour"]
    found, expected = np.asarray(model.predict(image()).data), by_monai(image())[0]
    assert len(np.unique(expected)) == 3
    assert (found == expected).mean() > 0.9995


@pytest.mark.parametrize("limit", [2**26, 0])  # whole, and region by region
@pytest.mark.parametrize(
    "steps",
    [
        [{"_target_": "SpatialPadd", "keys": "image", "spatial_size": [40, 30]}],
        [{"_target_": "Resized", "keys": "image", "spatial_size": [40, 30], "mode": "bilinear"}],
    ],
    ids=["padded", "resized"],
)
@pytest.mark.parametrize("load", [{}, {"reverse_indexing": False}], ids=["by columns", "by rows"])
def test_a_picture_has_its_columns_first_as_monais_readers_give_it(tmp_path, monkeypatch, steps, limit, load):
    monkeypatch.setattr(monai_transforms, "STREAMED_BYTES", limit)
    pixels = np.random.default_rng(3).integers(0, 255, (12, 16), np.uint8).repeat(2, 0).repeat(2, 1)[:-1]
    Picture.fromarray(pixels).save(tmp_path / "wide.png")
    folder = of_pictures(tmp_path / "bundle", steps, **load)
    made = [getattr(mt, one["_target_"])(**{key: one[key] for key in one if key != "_target_"}) for one in steps]
    load_it = [mt.LoadImaged(keys=["image"], **load), mt.EnsureChannelFirstd(keys=["image"])]
    before = mt.Compose([*load_it, *made, mt.ScaleIntensityd(keys=["image"])])
    case = before({"image": str(tmp_path / "wide.png")})
    with torch.inference_mode():
        case["pred"] = SlidingWindowInferer([40, 30])(case["image"][None], flat())[0]
    after = [mt.Activationsd("pred", softmax=True), mt.Invertd("pred", before, "image", nearest_interp=False)]
    expected = np.asarray(mt.Compose([*after, mt.AsDiscreted("pred", argmax=True)])(case)["pred"])[0]
    found = np.asarray(hilum.load(folder, "cpu").predict(tmp_path / "wide.png").data)
    assert found.shape == pixels.shape and len(np.unique(found)) == 3
    assert (found == (expected if load else expected.T)).mean() > 0.999


def test_an_array_of_numpy_keeps_its_axes_as_monai_reads_it(tmp_path):
    pixels = np.random.default_rng(3).integers(0, 255, (16, 32), np.uint8)
    np.save(tmp_path / "wide.npy", pixels.T)
    Picture.fromarray(pixels).save(tmp_path / "wide.png")
    model = hilum.load(of_pictures(tmp_path / "bundle", []), "cpu")
    seen = [model.preprocessing(hilum.read(tmp_path / f"wide.{end}"), "wide")[0] for end in ("png", "npy")]
    assert np.array_equal(*seen)


@pytest.mark.parametrize(
    ("activation", "says"), [([], "outputs without an Activationsd"), ([AFTER[0]], "a threshold of a softmax")]
)
def test_a_threshold_of_what_is_no_sigmoid_is_refused(tmp_path, activation, says):
    steps = [*activation, AFTER[1], {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    with pytest.raises(UsageError, match=says):
        hilum.load(bundle(tmp_path, steps), "cpu")


@pytest.mark.parametrize(
    ("given", "says"),
    [
        ({"padding_mode": "reflect"}, "padding_mode reflect"),
        ({"overlap": 1.5}, r"cannot be \(1.5"),
        ({"roi_size": [-1, 16, 16]}, r"roi_size of \[-1, 16, 16\]"),
        ({"mode": "gaussian", "sigma_scale": 0.5}, "sigma_scale 0.5"),
    ],
)
def test_windows_that_ours_are_not_are_refused(tmp_path, given, says):
    window = {"_target_": "SlidingWindowInferer", "roi_size": [16, 16, 16], **given}
    with pytest.raises(UsageError, match=says):
        hilum.load(bundle(tmp_path, inferer=window), "cpu")


@pytest.mark.parametrize(
    ("names", "channels", "fits"),
    [
        (("T1", "T2"), ("T2", "T1"), False),
        (("T1", "T2"), ("FLAIR", "T2"), False),
        (("T1", "T2"), ("t1", "t2"), True),
        (("T1", "T2"), ("0", "1"), True),
        (("image", "image"), ("T1", "T2"), True),
        (("red", "green", "blue"), ("R", "G", "B"), True),
        (("blue", "green", "red"), ("R", "G", "B"), False),
    ],
)
def test_channels_of_other_names_or_in_another_order_are_refused(names, channels, fits):
    count = len(names)
    preprocessing = MonaiTransforms(names, 3, mt.Compose([]), True, (4, 4, 4))
    subject = Image(np.zeros((count, 4, 4, 4), np.float32), Geometry((4, 4, 4), np.eye(4)), channels=channels)
    if fits:
        assert preprocessing(subject, "case")[0].shape == (count, 4, 4, 4)
        return
    with pytest.raises(DatasetError, match=f"channels {', '.join(channels)} are not the model's {', '.join(names)}"):
        preprocessing(subject, "case")


def test_a_bundle_is_predicted_with_like_any_model(tmp_path):
    hilum.write(image(), tmp_path / "case.nii.gz")
    folder = bundle(tmp_path / "bundle")
    done = hilum.predict(folder, tmp_path / "case.nii.gz", out=tmp_path / "out", device="cpu")
    expected = np.asarray(hilum.load(folder, "cpu").predict(tmp_path / "case.nii.gz").data)
    assert np.array_equal(hilum.read(done.files[0]).data[0], expected)


def test_regions_that_are_called_by_a_threshold_are_written_in_their_order(tmp_path):
    steps = [SIGMOID, AFTER[1], {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    found = np.asarray(hilum.load(bundle(tmp_path, steps), "cpu").predict(image()).data)
    expected = np.zeros(found.shape, dtype=int)
    for value, channel in enumerate(by_monai(image(), argmax=False), start=1):
        expected[channel > 0] = value
    assert (found == expected).mean() > 0.9995


@pytest.mark.parametrize("after", [AFTER, [SIGMOID, AFTER[1], {**AFTER[2], "argmax": False, "threshold": 0.5}]])
@pytest.mark.parametrize("named", [{"0": "background", "1": "liver"}, {str(n): f"part {n}" for n in range(4)}])
def test_outputs_that_are_not_as_many_as_the_metadata_name_are_refused(tmp_path, named, after):
    folder = bundle(tmp_path, after)
    metadata = json.loads((folder / "configs" / "metadata.json").read_text())
    metadata["network_data_format"]["outputs"]["pred"]["channel_def"] = named
    (folder / "configs" / "metadata.json").write_text(json.dumps(metadata))
    with pytest.raises(FormatError, match=rf"metadata\.json: names {len(named)} outputs, the network gives 3"):
        hilum.load(folder, "cpu").predict(image())


@pytest.mark.parametrize(
    ("given", "groups"),
    [
        ({}, [[1], [2]]),
        ({"applied_labels": 2}, [[2]]),
        ({"applied_labels": [1, 2], "independent": False}, [[1, 2]]),
    ],
)
def test_of_the_labels_that_a_bundle_names_the_largest_piece_stays(tmp_path, given, groups):
    step = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", **given}
    found = np.asarray(hilum.load(bundle(tmp_path, [*AFTER, step]), "cpu").predict(image()).data)
    whole = np.array(hilum.load(bundle(tmp_path / "whole"), "cpu").predict(image()).data)
    for group in groups:
        pieces, _ = ndimage.label(np.isin(whole, group), np.ones((3, 3, 3)))
        sizes = np.bincount(pieces.ravel())[1:]
        whole[(pieces > 0) & (pieces != 1 + sizes.argmax())] = 0
    assert np.array_equal(found, whole)


@pytest.mark.parametrize(("given", "says"), [({"num_components": 2}, "num_components 2"), ({}, "overlapping regions")])
def test_a_largest_piece_of_another_kind_is_refused(tmp_path, given, says):
    before = [SIGMOID, {"_target_": "AsDiscreted", "keys": "pred", "threshold": 0.5}]
    step = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred", **given}
    with pytest.raises(UsageError, match=says):
        hilum.load(bundle(tmp_path, [*before, step]), "cpu")


def test_a_largest_piece_of_what_is_no_label_yet_is_refused(tmp_path):
    piece = {"_target_": "KeepLargestConnectedComponentd", "keys": "pred"}
    with pytest.raises(UsageError, match="before its outputs are thresholded"):
        hilum.load(bundle(tmp_path, [AFTER[0], piece, *AFTER[1:]]), "cpu")


@pytest.mark.parametrize(
    ("changes", "says"),
    [
        ({"units": "$__import__('os').mkdir('MARK')"}, "would run"),
        ({"units": "$1 + open('MARK')"}, r"would run.*: open\(.MARK.\) is not read"),
        ({"units": "%other.json#units"}, "refers to %other"),
        ({"network_def": {"_target_": "os.mkdir", "path": "MARK"}}, "needs os.mkdir"),
        ({"network_def": {}}, "describes no class"),
        ({"network_def": {"_target_": "scripts.network.Net"}}, "needs scripts.network.Net"),
        ({"network_def": {"_target_": "monai.networks.nets.UNet.forward"}}, "needs"),
        ({"network_def": {"_target_": "torch.nn.functional"}}, "needs torch.nn.functional"),
        ({"network_def": {**NETWORK, "_mode_": "callable"}}, "callable"),
        ({"network_def": {**NETWORK, "widths": [1]}}, "cannot be made"),
        (
            {"preprocessing": {"_target_": "Compose", "transforms": [{"_target_": "Lambdad", "keys": "image"}]}},
            "Lambdad",
        ),
        ({"inferer": {"_target_": "SimpleInferer"}}, "no spatial_size, the voxels of an image"),
        ({"inferer": {"_target_": "SlidingWindowInferer"}}, "no roi_size"),
        ({"inferer": {"_target_": "SlidingWindowInferer", "roi_size": "large"}}, "not a number"),
        ({"inferer": {"_target_": "SlidingWindowInferer", "roi_size": ["a", 1, 1]}}, "not a number"),
        ({"postprocessing": {"_target_": "Compose", "transforms": [{"_target_": "FillHolesd"}]}}, "FillHolesd"),
        ({"postprocessing": None}, "what its outputs mean"),
    ],
)
def test_what_we_do_not_know_of_a_bundle_is_refused_and_nothing_of_it_runs(tmp_path, monkeypatch, changes, says):
    monkeypatch.chdir(tmp_path)
    folder = bundle(tmp_path / "bundle", **changes)
    with pytest.raises(UsageError, match=says):
        hilum.load(folder, "cpu")
    assert os.listdir(tmp_path) == ["bundle"]  # noqa: PTH208 - names alone


def test_windows_that_a_network_cannot_take_and_steps_that_fail_are_refused_in_words(tmp_path):
    window = {"_target_": "SlidingWindowInferer", "roi_size": [15, 16, 16]}
    with pytest.raises(FormatError, match=r"takes no windows of \(15, 16, 16\)"):
        hilum.load(bundle(tmp_path / "odd", inferer=window), "cpu").predict(image())
    turn = {"_target_": "Orientationd", "keys": "image", "axcodes": "XYZ"}
    steps = {"_target_": "Compose", "transforms": [turn]}
    with pytest.raises(DatasetError, match="does not go through the model's transforms"):
        hilum.load(bundle(tmp_path / "turned", preprocessing=steps), "cpu").predict(image())


def test_a_literal_too_long_for_a_configuration_is_refused_unread(tmp_path):
    with pytest.raises(UsageError, match="an expression of 20002 letters"):
        hilum.load(bundle(tmp_path, units=f"$[{'0,' * 10_000}]"), "cpu")


def test_a_bundle_whose_steps_only_read_the_image_is_predicted_with(tmp_path):
    reading = [{"_target_": name, "keys": "image"} for name in ("LoadImaged", "EnsureChannelFirstd")]
    folder = bundle(tmp_path, preprocessing={"_target_": "Compose", "transforms": reading})
    subject = image()
    found = hilum.load(folder, "cpu").predict(subject).data
    inferer = SlidingWindowInferer([16, 16, 16], overlap=0.5, mode="gaussian")
    with torch.inference_mode():
        expected = inferer(torch.from_numpy(subject.data)[None], network())[0].argmax(0).numpy()
    assert (np.asarray(found).squeeze() == expected).mean() > 0.999


def test_a_reference_to_nothing_or_to_itself_is_refused(tmp_path):
    with pytest.raises(FormatError, match="refers to itself"):
        hilum.load(bundle(tmp_path / "one", units="@units"), "cpu")
    with pytest.raises(FormatError, match="has no 'number'"):
        hilum.load(bundle(tmp_path / "two", units="@number"), "cpu")


def test_references_that_name_each_other_a_million_times_are_refused(tmp_path):
    grown = {f"a{n}": [f"@a{n - 1}"] * 9 for n in range(1, 12)}
    with pytest.raises(FormatError, match="references never end"):
        hilum.load(bundle(tmp_path / "bundle", **grown, a0="lol", units="@a11"), "cpu")


def test_weights_that_do_not_fit_and_images_of_other_axes_are_refused(tmp_path):
    folder = bundle(tmp_path)
    flat = Image(np.zeros((1, 8, 8), dtype=np.float32), Geometry.of_pixels((8, 8)))
    with pytest.raises(GeometryError, match="3 axes"):
        hilum.load(folder, "cpu").predict(flat)
    torch.save({"weight": torch.zeros(1)}, folder / "models" / "model.pt")
    with pytest.raises(IntegrityError, match="other weights"):
        hilum.load(folder, "cpu")
