"""Copies are found whatever became of them, and different images of one set are not taken for copies."""

from __future__ import annotations

import io
from collections.abc import Mapping
from pathlib import Path

import numpy as np
import PIL.Image
import pytest

from hilum.layouts import dataset_layouts
from hilum.quality import image_descriptors, leakage
from hilum.quality.image_descriptors import ImageLook
from hilum.quality.leakage import Twin
from hilum.transforms import channel_stack, resampling
from hilum.values import Case, Geometry, Image
from matrices import thinned


def seen(image: Image) -> ImageLook:
    return image_descriptors.describe_image(image, image.valid)


def looks_of(cases: tuple[Case, ...]) -> dict[str, ImageLook]:
    return {case.id: seen(channel_stack.stack_images(case.images, case.id)) for case in cases}


def grey(pixels: np.ndarray) -> Image:
    return Image(pixels[None], Geometry.of_pixels(pixels.shape))


def pairs(looks: Mapping[str, ImageLook]) -> list[set[str]]:
    return [{twin.first, twin.second} for twin in leakage.find_twins(looks)]


@pytest.fixture(scope="module")
def radiographs(data: Path) -> dict[str, np.ndarray]:
    folder = data / "chest_xray" / "NORMAL"
    files = sorted(folder.iterdir())[:12]
    # Half the size is enough for this, and four times as fast.
    return {path.stem: np.asarray(PIL.Image.open(path).convert("L").reduce(2)) for path in files}


def jpeg(pixels: np.ndarray, quality: int = 40) -> np.ndarray:
    file = io.BytesIO()
    PIL.Image.fromarray(pixels).save(file, "JPEG", quality=quality)
    return np.asarray(PIL.Image.open(file))


def halved(pixels: np.ndarray) -> np.ndarray:
    return np.asarray(PIL.Image.fromarray(pixels).reduce(2))


def brighter(pixels: np.ndarray) -> np.ndarray:
    return (pixels * 1.1 + 10).clip(0, 255).astype(np.uint8)


@pytest.mark.parametrize("change", thinned(1, [jpeg, halved, brighter]))
def test_a_copy_is_known_again_after(radiographs, change):
    looks = {name: seen(grey(pixels)) for name, pixels in radiographs.items()}
    name = next(iter(radiographs))
    found = leakage.find_twins({**looks, "copy": seen(grey(change(radiographs[name])))})
    assert [{one.first, one.second} for one in found] == [{name, "copy"}]
    assert not found[0].exact
    assert found[0].likeness > 0.97


def test_different_radiographs_are_no_twins(radiographs):
    assert not leakage.find_twins({name: seen(grey(pixels)) for name, pixels in radiographs.items()})


def test_equal_voxels_are_exact_twins_whatever_the_file_kept_them_as(radiographs):
    pixels = next(iter(radiographs.values()))
    colour = Image(np.stack([pixels] * 3), Geometry.of_pixels(pixels.shape), channels=("R", "G", "B"))
    wide = grey(pixels.astype(np.float64))
    found = leakage.find_twins({"grey": seen(grey(pixels)), "colour": seen(colour), "wide": seen(wide)})
    assert all(one.exact for one in found)
    assert leakage.joined_groups(found) == (frozenset({"grey", "colour", "wide"}),)


def test_a_volume_stored_in_another_order_of_axes_is_the_same_volume():
    noise = np.random.default_rng(0).normal(size=(1, 12, 14, 16)).astype(np.float32)
    grid = Geometry((12, 14, 16), np.eye(4))
    turned = grid.permute((2, 0, 1), (True, False, True))
    moved = noise.transpose(0, 3, 1, 2)[:, ::-1, :, ::-1]
    assert seen(Image(noise, grid)).digest == seen(Image(moved, turned)).digest


def test_pairs_join_into_groups():
    chain = (Twin("a", "b", 1.0, True), Twin("b", "c", 0.98, False), Twin("x", "y", 0.99, False))
    assert set(leakage.joined_groups(chain)) == {frozenset("abc"), frozenset("xy")}
    assert leakage.joined_groups(()) == ()


@pytest.mark.whole
def test_the_contradictory_pair_of_the_ultrasound_set_and_its_near_copy_are_all_that_is_found(corpus: Path):
    dataset = dataset_layouts.read_dataset(corpus / "ultrasound")
    found = leakage.find_twins(looks_of(dataset.cases))
    assert {(one.first, one.second, one.exact) for one in found} == {
        ("benign (433)", "malignant (145)", True),
        ("benign (164)", "benign (85)", False),
    }


def test_at_28_pixels_copies_are_still_known_again_and_women_told_apart(corpus: Path):
    files = sorted((corpus / "ultrasound" / "images").rglob("*.png"))
    pictures = {path.stem: PIL.Image.open(path).convert("L").resize((28, 28)) for path in files}
    pixels = {name: np.asarray(picture) for name, picture in pictures.items()}
    some = [*pixels][::5]
    copies = {f"{name}, copied": brighter(jpeg(pixels[name], 75)) for name in some}
    found = pairs({name: seen(grey(one)) for name, one in {**pixels, **copies}.items()})
    known = [{"benign (433)", "malignant (145)"}, {"benign (164)", "benign (85)"}]
    assert all(pair in found for pair in [*known, *({name, f"{name}, copied"} for name in some)])
    shown = [{name.removesuffix(", copied") for name in pair} for pair in found]
    assert all(len(pictured) == 1 or pictured in known for pictured in shown)


def test_at_28_pixels_copies_are_still_known_again_and_children_told_apart(data: Path):
    with np.load(data / "medmnist" / "pneumoniamnist.npz") as arrays:
        pixels = {str(n): chest for n, chest in enumerate(arrays["train_images"][:60])}
    copies = {f"{name}, copied": brighter(jpeg(pixels[name], 75)) for name in [*pixels][::6]}
    found = pairs({name: seen(grey(one)) for name, one in {**pixels, **copies}.items()})
    assert {frozenset(pair) for pair in found} == {frozenset((name.removesuffix(", copied"), name)) for name in copies}


@pytest.mark.whole
def test_eyes_in_one_odd_frame_are_not_one_eye(corpus: Path):
    with np.load(corpus / "medmnist" / "retinamnist.npz") as arrays:
        eyes, grades = arrays["train_images"].mean(axis=3).round().astype(np.uint8), arrays["train_labels"].ravel()
    found = leakage.find_twins(
        {
            str(n): image_descriptors.describe_image(grey(eye), np.ones((1, *eye.shape), bool), marks=False)
            for n, eye in enumerate(eyes)
        }
    )
    # Eight pictures with white corners are four eyes; the others look nearly like one another, of whatever grade.
    assert {"109", "223"} in [{one.first, one.second} for one in found]
    assert all(grades[int(one.first)] == grades[int(one.second)] for one in found)


def moved(pixels: np.ndarray, down: int, right: int, mode: str) -> np.ndarray:
    rows, columns = pixels.shape
    wide = np.pad(pixels, 1, mode=mode)
    return wide[1 + down : 1 + down + rows, 1 + right : 1 + right + columns]


@pytest.mark.parametrize("mode", thinned(1, ["edge", "constant"]))
@pytest.mark.parametrize(("down", "right"), thinned(1, [(0, 1), (-1, 0), (1, 1), (1, -1)]))
def test_at_28_pixels_a_copy_that_is_moved_by_one_is_known_again(data: Path, down: int, right: int, mode: str):
    with np.load(data / "medmnist" / "retinamnist.npz") as arrays:
        eyes = arrays["train_images"][:60].mean(axis=3).round().astype(np.uint8)
    looks = {
        str(n): image_descriptors.describe_image(grey(eye), np.ones((1, *eye.shape), bool), marks=False)
        for n, eye in enumerate(eyes)
    }
    before = pairs(looks)
    copies = {f"{n}, moved": seen(grey(moved(eyes[n], down, right, mode))) for n in range(0, 60, 6)}
    found = [pair for pair in pairs({**looks, **copies}) if pair not in before]
    assert found
    assert {frozenset(pair) for pair in found} == {frozenset((str(n), f"{n}, moved")) for n in range(0, 60, 6)}


def smears(folder: Path) -> dict[str, np.ndarray]:
    """Blood smears at an eighth of their size, which is enough and takes far less time."""
    shown = {}
    for path in sorted((folder / "bccd" / "JPEGImages").glob("*.jpg")):
        with PIL.Image.open(path) as picture:
            picture.draft("L", (80, 60))
            shown[path.stem] = np.asarray(picture.convert("L"))
    return shown


@pytest.mark.whole
def test_two_smears_of_one_field_are_found_although_the_stage_has_moved(corpus: Path):
    found = pairs({name: seen(grey(pixels)) for name, pixels in smears(corpus).items()})
    assert {"BloodImage_00386", "BloodImage_00391"} in found
    assert len(found) == 2


def test_a_smear_taken_again_with_a_moved_stage_is_all_that_is_found(data: Path):
    shown = smears(data)
    looks = {name: seen(grey(pixels[:-1, :-1])) for name, pixels in shown.items()}
    assert pairs(looks) == []
    again = jpeg(shown["BloodImage_00003"], 75)[1:, 1:]
    assert pairs({**looks, "again": seen(grey(again))}) == [{"BloodImage_00003", "again"}]


@pytest.mark.whole
def test_no_two_hippocampi_are_one_but_a_copy_of_one_is(data: Path):
    cases = dataset_layouts.read_dataset(data / "hippocampus").cases[:60]
    looks = looks_of(cases)
    assert not leakage.find_twins(looks)
    volume = channel_stack.stack_images(cases[11].images, "").data.astype(np.float32)
    noisy = 0.7 * volume + np.random.default_rng(0).normal(0, 0.02 * np.ptp(volume), volume.shape)
    coarse = resampling.resample(noisy, [max(4, 2 * size // 3) for size in volume.shape[1:]])
    copy = seen(Image(coarse, Geometry(coarse.shape[1:], np.eye(4))))
    [found] = leakage.find_twins({**looks, "copy": copy})
    assert {found.first, found.second} == {cases[11].id, "copy"}


@pytest.mark.whole
def test_the_images_that_pneumoniamnist_has_in_train_and_val_are_found(data: Path):
    dataset = dataset_layouts.read_dataset(data / "medmnist" / "pneumoniamnist.npz")
    parts = dataset.splits
    # All of val, and a tenth of train with all that the set's own description calls doubles among them.
    images = {case.id: next(iter(case.images.values())) for case in dataset if parts[case.id] != "test"}
    pixels = {name: image.data.tobytes() for name, image in images.items()}
    val = {pixels[name] for name in images if parts[name] == "val"}
    doubles = {name for name in images if parts[name] == "train" and pixels[name] in val}
    some = doubles | {name for name in images if parts[name] == "val"} | set(list(images)[::10])
    found = leakage.find_twins({name: seen(images[name]) for name in images if name in some})
    across = [one for one in found if {parts[one.first], parts[one.second]} == {"train", "val"}]
    assert len({pixels[one.first] for one in across if one.exact}) == 8


def test_thousands_are_compared_in_blocks():
    rng = np.random.default_rng(3)
    small = rng.normal(size=(3000, 32, 32)).astype(np.float32)
    small[2900] = small[17] + rng.normal(0, 0.02, (32, 32))
    small[1500] = small[1499]
    found = leakage.find_twins({str(n): ImageLook(str(n), one, ()) for n, one in enumerate(small)})
    assert {(one.first, one.second) for one in found} == {("17", "2900"), ("1499", "1500")}


def test_of_very_many_copies_of_one_picture_each_makes_a_pair_with_the_first():
    rng = np.random.default_rng(0)
    small = rng.normal(size=(30, 32, 32)).astype(np.float32)
    looks = {str(n): ImageLook(str(n), one, ()) for n, one in enumerate(small)}
    looks |= {f"copy{n}": looks["7"] for n in range(500)}
    found = leakage.find_twins(looks)
    assert all(one.exact for one in found)
    assert {"7", *(f"copy{n}" for n in range(500))} == {name for one in found for name in (one.first, one.second)}
    assert len(found) < 1000  # of all with all there would be 125,250
    assert leakage.joined_groups(found) == (frozenset({"7", *(f"copy{n}" for n in range(500))}),)


@pytest.mark.whole
def test_of_a_clip_without_movement_each_frame_is_joined_by_few_pairs():
    rng = np.random.default_rng(0)
    frames = (rng.normal(size=(32, 32)) + rng.normal(0, 0.02, (600, 32, 32))).astype(np.float32)
    others = rng.normal(size=(600, 32, 32)).astype(np.float32)
    small = {f"frame{n}": one for n, one in enumerate(frames)} | {f"other{n}": one for n, one in enumerate(others)}
    found = leakage.find_twins({name: ImageLook(name, one, ()) for name, one in small.items()})
    assert leakage.joined_groups(found) == (frozenset(f"frame{n}" for n in range(600)),)
    assert len(found) < 20_000  # of all with all there would be 179,700
