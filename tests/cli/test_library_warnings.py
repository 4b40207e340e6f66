"""Warnings of libraries on the terminal."""

from __future__ import annotations

import warnings

import numpy as np


def test_a_warning_of_a_library_is_a_sentence_without_a_place_in_its_code(cli, caplog):
    cli("info", "--json")
    with warnings.catch_warnings():
        warnings.simplefilter("always")
        np.array([1.0]) / np.array([0.0])
        warnings.warn_explicit(
            "slow here. (Triggered internally at ../aten/a.cpp:3.)", UserWarning, "/x/site-packages/torch/b.py", 7
        )
    assert [record.getMessage() for record in caplog.records][-2:] == [
        "a note from hilum: divide by zero encountered in divide.",
        "a note from torch: slow here.",
    ]
