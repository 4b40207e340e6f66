"""Images and patients of two sites on one machine."""

from __future__ import annotations

import shutil
from pathlib import Path

import numpy as np
import PIL.Image

from hilum.federation import shared_cases
from hilum.reading import ReadingOptions, dataset_reading


def site(root: Path, numbers: range, patients: str) -> Path:
    """Pictures of noise of two classes; patients: what their names begin with."""
    root.mkdir()
    rows = ["image,label,patient"]
    for number in numbers:
        pixels = np.random.default_rng(number).integers(0, 255, (32, 32)).astype(np.uint8)
        PIL.Image.fromarray(pixels).save(root / f"{number}.png")
        rows.append(f"{number}.png,{'ill' if number % 2 else 'well'},{patients}{number}")
    (root / "site.csv").write_text("\n".join(rows))
    return root / "site.csv"


def examined(**tables: Path):
    return {
        name: dataset_reading.examine_cases(dataset_reading.open_dataset(table, ReadingOptions()), 1)
        for name, table in tables.items()
    }


def test_what_two_sites_share_is_counted_and_nothing_is_said_of_others(tmp_path):
    north, south = site(tmp_path / "north", range(12), "n"), site(tmp_path / "south", range(20, 32), "s")
    assert not list(shared_cases.shared_sentences(examined(north=north, south=south)))
    for copied, into in ((3, 21), (4, 22)):
        shutil.copy(north.parent / f"{copied}.png", south.parent / f"{into}.png")
    nearly = np.clip(np.asarray(PIL.Image.open(north.parent / "5.png"), dtype=float) * 0.9 + 5, 0, 255)
    PIL.Image.fromarray(nearly.astype(np.uint8)).save(south.parent / "23.png")
    south.write_text(south.read_text().replace("s24", "n3"))
    assert list(shared_cases.shared_sentences(examined(north=north, south=south))) == [
        "north and south hold 2 pairs of cases with the same image: what trains at one may test at the other.",
        "north and south hold 1 pair of cases with nearly the same image: what trains at one may test at the other.",
        "north and south share 1 name of patients: if these are the same people, they leak too.",
    ]
