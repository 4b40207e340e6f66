"""The sets whose test cases had a say in a setting of ours, so that their figures flatter us: they are marked."""

from __future__ import annotations

from pathlib import PurePosixPath

MARK = "†"
# Why stands in docs/benchmarks.md.
SWAYED = frozenset({
    "hippocampus", "pneumoniamnist", "retinamnist", "adrenalmnist3d", "bccd", "cardiac_sunnybrook", "chasedb1",
    "lgg_flair", "ultrasound",
})  # fmt: skip


def marked(data: str, words: str) -> str:
    """The words on a set, with the mark before them where it is one of these; data: its path in the shared data"""
    return f"{MARK} {words}" if PurePosixPath(data).stem in SWAYED else words
