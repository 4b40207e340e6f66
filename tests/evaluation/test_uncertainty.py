from __future__ import annotations

import numpy as np
import pytest

from hilum.evaluation import uncertainty


def test_certainty_has_no_entropy_and_knowing_nothing_the_logarithm_of_the_number_of_classes():
    chances = np.array([[1.0, 0.0, 0.0], [1 / 3] * 3, [0.5, 0.5, 0.0]], np.float32).T
    assert uncertainty.entropy(chances) == pytest.approx([0.0, np.log(3), np.log(2)], abs=1e-6)


def test_entropies_of_labels_that_do_not_exclude_each_other_add_up():
    assert uncertainty.entropy(np.array([[0.5], [0.5], [1.0]]), exclusive=False) == pytest.approx(
        [2 * np.log(2)], abs=1e-6
    )
