from __future__ import annotations

import numpy as np

from isocenter.evaluation import probable_label_errors


def test_by_hand_a_case_is_an_error_where_another_class_is_as_probable_as_it_usually_is():
    """Class 0 has on average 0.7 among its cases, class 1 has 0.6: the third case is probably of class 1."""
    chances = [[0.9, 0.1], [0.9, 0.1], [0.3, 0.7], [0.4, 0.6], [0.5, 0.5]]
    assert probable_label_errors(chances, [0, 0, 0, 1, 1]).tolist() == [-1, -1, 1, -1, -1]


def test_planted_label_errors_are_found_and_few_others():
    rng = np.random.default_rng(0)
    truth = rng.integers(3, size=600)
    logits = rng.normal(0, 1, (600, 3)) + 6 * np.eye(3)[truth]
    chances = np.exp(logits) / np.exp(logits).sum(axis=1, keepdims=True)
    labels, wrong = truth.copy(), rng.random(600) < 0.08
    labels[wrong] = (labels[wrong] + 1) % 3
    found = probable_label_errors(chances, labels)
    assert (found[wrong] == truth[wrong]).mean() > 0.85
    assert (found[~wrong] >= 0).mean() < 0.03


def test_a_class_that_nobody_is_labelled_as_is_never_suspected():
    chances = [[0.1, 0.9, 0.0], [0.2, 0.8, 0.0], [0.0, 0.0, 1.0]]
    assert (probable_label_errors(chances, [0, 1, 1]) != 2).all()
