"""Images out of all proportion to those that trained a model."""

from __future__ import annotations

from types import SimpleNamespace

import numpy as np
import pytest

from hilum.errors import DatasetError
from hilum.runtime import Preprocessing, proportion
from hilum.runtime.proportion import Looking
from hilum.transforms.intensity import Normalisation
from hilum.values import Geometry, Image

LOOKING = Looking(Preprocessing(3, ("CT",), (Normalisation("zscore"),), (1.0, 1.0, 2.0)), (24, 26, 20), 0.5)
SHAPE = (24, 26, 20)


def grid(*spacing: float, shape: tuple[int, ...] = SHAPE) -> Geometry:
    return Geometry.of_spacing(shape, spacing)


def model(**record):
    """As much of a model as is looked at."""
    inference = SimpleNamespace(patch=LOOKING.patch, overlap=LOOKING.overlap)
    task = SimpleNamespace(merge="gaussian")
    return SimpleNamespace(preprocessing=LOOKING.preprocessing, inference=inference, task=task, record=record)


def trained_with(shape: tuple[int, ...] = SHAPE) -> dict[str, object]:
    largest = {"shape": list(map(float, shape)), "steps": [1.0, 1.0, 2.0]}
    axes = {"max": list(map(float, shape))}
    return {"physical": True, "largest": largest, "shape": axes, "spacing": {"median": [1.0, 1.0, 2.0]}}


def test_windows_follow_from_the_header():
    assert LOOKING.windows(grid(1, 1, 2)) == 1
    assert LOOKING.windows(grid(10, 10, 20)) == 19**3  # 10 windows side by side, and one between each two
    assert LOOKING.windows_without_spacing(grid(10, 10, 20)) == 1
    assert LOOKING.windows(grid(10, 10, 20), (slice(0, 1), slice(0, 1), slice(0, 1))) < 5**3 + 1


@pytest.mark.parametrize("spacing", [(10, 10, 20), (30, 30, 40), (10, 10, 2), (1, 30, 40)])
def test_a_wrong_spacing_is_refused_with_the_likely_cause(spacing):
    image = Image(np.zeros((1, *SHAPE), np.float32), grid(*spacing))
    words = " x ".join(map(str, spacing))
    with pytest.raises(DatasetError, match=f"spacing {words} mm where training had 1 x 1 x 2") as refused:
        proportion.refuse_out_of_proportion(model(fingerprint=trained_with()), image, "p03")
    assert refused.value.where == "p03"
    assert "--allow-large" in refused.value.remedy


def test_many_voxels_are_named_as_the_cause_where_the_spacing_is_as_in_training():
    image = Image(np.zeros((1, 240, 26, 400), np.uint8), grid(1, 1, 2, shape=(240, 26, 400)))
    with pytest.raises(DatasetError, match="240 x 26 x 400 voxels where training had up to 24 x 26 x 20"):
        proportion.refuse_out_of_proportion(model(fingerprint=trained_with()), image, "p03")
    proportion.refuse_out_of_proportion(model(fingerprint=trained_with((200, 26, 100))), image, "p03")


def test_a_part_of_such_an_image_is_predicted():
    image = Image(np.zeros((1, *SHAPE), np.float32), grid(10, 10, 20))
    part = (slice(11, 12), slice(12, 13), slice(9, 10))
    with pytest.raises(DatasetError):
        proportion.refuse_out_of_proportion(model(fingerprint=trained_with()), image, "p03")
    proportion.refuse_out_of_proportion(model(fingerprint=trained_with()), image, "p03", part)


def test_where_nobody_knows_what_trained_the_voxels_as_they_are_stored_stand_for_it():
    """Thick slices and half the resolution are predicted; a header in cm is not."""
    for spacing, shape in (((1, 1, 8), (96, 104, 20)), ((2, 2, 4), (64, 64, 60))):
        proportion.refuse_out_of_proportion(
            model(), Image(np.zeros((1, *shape), np.uint8), grid(*spacing, shape=shape)), "p"
        )
    with pytest.raises(DatasetError, match="spacing 30 x 30 x 40 mm where the model works at 1 x 1 x 2"):
        proportion.refuse_out_of_proportion(model(), Image(np.zeros((1, *SHAPE), np.uint8), grid(30, 30, 40)), "p")


def test_of_a_mean_the_largest_image_of_all_members_counts():
    image = Image(np.zeros((1, 240, 26, 400), np.uint8), grid(1, 1, 2, shape=(240, 26, 400)))
    members = [{"fingerprint": trained_with()}, {"fingerprint": trained_with((200, 26, 100))}]
    with pytest.raises(DatasetError):
        proportion.refuse_out_of_proportion(model(members=members[:1]), image, "p03")
    proportion.refuse_out_of_proportion(model(members=members), image, "p03")


def test_a_training_case_out_of_proportion_does_not_count_as_the_largest():
    cases = {f"p{n}": grid(1, 1, 2) for n in range(11)}
    assert proportion.disproportionate_cases(LOOKING, {**cases, "odd": grid(10, 10, 20)}, {*cases, "odd"}) == {
        "odd": 19**3
    }
    assert proportion.disproportionate_cases(LOOKING, {**cases, "odd": grid(10, 10, 20)}, set(cases)) == {"odd": 19**3}
    # Twice as long on each axis is nothing to refuse, nor is a set of many sizes.
    assert not proportion.disproportionate_cases(LOOKING, {**cases, "odd": grid(2, 2, 4)}, set(cases))
    sizes = {f"p{n}": grid(1, 1, 2, shape=(24 * n, 26 * n, 20 * n)) for n in range(1, 9)}
    assert not proportion.disproportionate_cases(LOOKING, sizes, set(sizes))
