from __future__ import annotations

from dataclasses import replace

import numpy as np
import torch
from numpy.testing import assert_allclose, assert_array_equal

from hilum.transforms import painting, random_draws
from hilum.transforms.augment import Augmentation
from hilum.transforms.augment_following import LabelMap
from hilum.transforms.painting import LabelPainter, PaintingRanges

# Neither grain nor anything that mixes neighbouring voxels.
PLAIN = PaintingRanges(deviation=0, blur=0, bias_field=0, gamma=0, thickness=1e-3, noise=0)
STEPS = (1.0, 1.0)
LABELS = np.zeros((1, 24, 20), dtype=np.uint8)
LABELS[:, 6:18, 5:15], LABELS[:, 10:14, 8:12] = 1, 2


def generators(*cases: int) -> list[np.random.Generator]:
    return [random_draws.sample_generator(0, 0, case) for case in cases]


def test_each_label_and_each_part_of_the_background_has_one_mean():
    painted = painting.paint_case(LABELS, STEPS, PLAIN, case="a")
    [value], [core] = (np.unique(painted[label == LABELS].round(4)) for label in (1, 2))
    parts = np.unique(painted[LABELS == 0].round(4))
    assert 2 < len(parts) <= PLAIN.background and value != core and not {value, core} & {*parts}
    assert len(np.unique(painting.paint_case(LABELS, STEPS, replace(PLAIN, background=1), case="a"))) == 3


def test_a_painted_image_is_a_function_of_its_case_and_draw_whatever_else_is_in_the_batch():
    first, again, other = (
        painting.paint_case(LABELS, STEPS, PaintingRanges(), case="a", draw=draw) for draw in (0, 0, 1)
    )
    assert_array_equal(first, again)
    assert abs(first - other).max() > 0.1
    maps = torch.as_tensor(np.stack([LABELS, LABELS * 40, LABELS]))
    alone, _, together = painting.paint_images(maps, generators(3, 4, 3), STEPS, PaintingRanges())
    assert_array_equal(alone, together)
    assert_array_equal(alone, painting.paint_images(maps[:1], generators(3), STEPS, PaintingRanges())[0])


def test_painted_images_are_scaled_as_the_network_sees_images_and_show_every_order_of_brightness():
    painted = [painting.paint_case(LABELS, STEPS, PaintingRanges(), case="a", draw=draw) for draw in range(30)]
    assert_allclose([one.mean() for one in painted], 0, atol=1e-4)
    assert_allclose([one.std() for one in painted], 1, atol=1e-3)
    brighter = np.mean([one[LABELS == 2].mean() > one[LABELS == 1].mean() for one in painted])
    assert 0.25 < brighter < 0.75


def test_the_background_follows_what_an_image_shows_where_there_is_one():
    image = torch.zeros(1, 1, 24, 20)
    image[..., :10] = 5.0
    empty = torch.zeros(1, 1, 24, 20)
    [painted] = painting.paint_images(empty, generators(1), STEPS, replace(PLAIN, background=2), image)
    sides = painted[0, :, :10], painted[0, :, 10:]
    assert all(len(one.unique()) == 1 for one in sides) and sides[0].unique() != sides[1].unique()


def test_channels_show_the_labels_that_their_tables_name_each_in_a_contrast_of_its_own():
    targets = torch.as_tensor(3 * LABELS + np.flip(LABELS, 1).copy())  # of a pair: fixed label times three, and moving
    shown = tuple(tuple(code // 3 if side == 0 else code % 3 for code in range(9)) for side in (0, 1))
    painter = LabelPainter(replace(PLAIN, background=1), shown, STEPS)
    fixed, moving = painter(torch.zeros(1, 2, 24, 20), targets, generators(1))[0].numpy()
    for one, labels in ((fixed, LABELS[0]), (moving, np.flip(LABELS[0], 0))):
        assert [len(np.unique(one[labels == label])) for label in (0, 1, 2)] == [1, 1, 1]
    assert fixed[12, 10] != moving[11, 10]


def test_the_share_of_samples_that_are_painted_is_that_of_the_plan_and_their_labels_stay():
    images, labels = torch.full((40, 1, 24, 20), 7.0), torch.as_tensor(np.repeat(LABELS, 40, axis=0))
    off = Augmentation(rotation=0, scale=0, contrast=0, brightness=0, gamma=0, noise=0)
    painter = LabelPainter(PaintingRanges(), ((0, 1, 2),), STEPS)
    for share, low, high in ((0.0, 0, 0), (0.5, 10, 30), (1.0, 40, 40)):
        changed, followed, _ = replace(off, painting=share).augment_with_target(
            images, LabelMap(labels), generators(*range(40)), STEPS, painter=painter
        )
        assert low <= int((changed != 7).flatten(1).any(dim=1).sum()) <= high
        assert_array_equal(followed.labels, labels)
