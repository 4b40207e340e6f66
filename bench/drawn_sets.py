"""Small sets drawn from the training part of a MedMNIST archive, tested on the rest of it, not on its test part."""

from __future__ import annotations

import argparse
import os
from collections.abc import Iterable
from pathlib import Path

import numpy as np


def in_words(cases: int, tested: int, given: argparse.Namespace, commits: Iterable[str]) -> str:
    """How such trainings were made, for the section of a page."""
    return (
        f"{cases} cases drawn from the training part, tested on up to {tested} others of it; {given.minutes:g} minutes "
        f"each on {given.threads} of {os.cpu_count()} cores; mean (SD) over draws. "
        f"Commits: {', '.join(dict.fromkeys(filter(None, commits)))}."
    )


def drawn(source: Path, seed: int, place: Path, cases: int, tested: int) -> Path:
    """An archive in the same format with so many training cases, and at most so many others as its test part."""
    with np.load(source) as arrays:
        images, labels = arrays["train_images"], arrays["train_labels"]
    order = np.random.default_rng(seed).permutation(len(images))
    place.parent.mkdir(parents=True, exist_ok=True)
    parts = {"train": np.sort(order[:cases]), "test": np.sort(order[cases : cases + tested])}
    whole = {
        f"{part}_{name}": own[rows]
        for part, rows in parts.items()
        for name, own in (("images", images), ("labels", labels))
    }
    np.savez(place, **whole)
    return place
