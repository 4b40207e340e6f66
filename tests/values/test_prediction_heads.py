"""Heads answer for themselves what other rooms ask of them."""

from __future__ import annotations

import numpy as np
import pytest

from hilum.values import Dense, Head, Vector
from hilum.values.prediction import Boxes, Instances, SeveralHeads


@pytest.mark.parametrize(
    ("head", "count", "answers"),
    [
        (Vector(3), 3, "vector"),
        (Dense(2), 2, "dense"),
        (Dense(5, lengths=2, offsets=2), 5, "boxes"),
        (Dense(4, heights=3), 4, "objects"),
        (Boxes(4), 4, ""),
        (Instances(), 0, ""),
        (SeveralHeads({"task": Vector(1)}), 0, ""),
    ],
)
def test_a_head_knows_its_numbers_and_what_a_network_must_be_able_to_answer(head: Head, count: int, answers: str):
    assert (head.count, head.answers) == (count, answers)
    assert head.is_vector == (answers == "vector")
    assert head.is_dense == (answers in ("dense", "boxes", "objects"))
    assert (head.holds_boxes, head.tells_objects) == (answers == "boxes", answers == "objects")


def test_only_lengths_and_offsets_turn_with_the_grid():
    class Flipped:
        def lengths_back(self, lengths, *, signed=False):
            return -2 * lengths if signed else 2 * lengths

    head = Dense(5, lengths=2, offsets=2)
    assert head.turns and not Dense(5).turns
    turned = head.turn_to_axes(np.ones((5, 3, 3), dtype=np.float32), Flipped())
    np.testing.assert_array_equal(turned[:, 0, 0], [1, 2, 2, -2, -2])
    assert turned.dtype == np.float32
