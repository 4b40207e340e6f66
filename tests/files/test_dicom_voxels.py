"""A region is read as the whole cut to it, and reads no more files than it needs."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_array_equal

from hilum.files import file_formats
from hilum.values import Image
from written_dicom import write_slice


@st.composite
def regions(draw: st.DrawFn, shape: tuple[int, ...]) -> tuple[slice, ...]:
    """Parts of an array: also empty, open, stepping and backwards, and of its first axes only."""
    parts = []
    for size in shape[: draw(st.integers(1, len(shape)))]:
        start, stop = draw(st.integers(-size, size)), draw(st.integers(-size, size))
        parts.append(
            draw(st.sampled_from([slice(None), slice(start, stop), slice(None, None, 2), slice(stop, start, -1)]))
        )
    return tuple(parts)


@pytest.fixture(scope="module")
def written(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Image]:
    """A volume in time, one with two kinds, and a clip."""
    folder = tmp_path_factory.mktemp("series")
    (folder / "time").mkdir()
    (folder / "kinds").mkdir()
    random = np.random.default_rng(0)
    for n in range(4):
        for t in range(3):
            write_slice(
                folder / "time" / f"{n}{t}.dcm", random.integers(0, 99, (3, 5), np.uint16), position=(0, 0, n),
                SliceThickness=1, TemporalPositionIdentifier=t,
            )  # fmt: skip
            write_slice(
                folder / "kinds" / f"{n}{t}.dcm", random.integers(0, 99, (3, 5), np.uint16), position=(0, 0, n),
                SliceThickness=1, ImageType=["ORIGINAL", "PRIMARY", "MPR"[t]],
            )  # fmt: skip
    clip = write_slice(
        folder / "clip.dcm", random.integers(0, 99, (6, 3, 5), np.uint16), position=None, orientation=None
    )
    return {
        "time": file_formats.read(folder / "time"),
        "kinds": file_formats.read(folder / "kinds"),
        "clip": file_formats.read(clip),
    }


@pytest.mark.parametrize("kind", ["time", "kinds", "clip"])
@settings(max_examples=30)
@given(draw=st.data())
def test_a_region_is_the_whole_cut_to_it(written: dict[str, Image], kind: str, draw: st.DataObject) -> None:
    image = written[kind]
    region = draw.draw(regions(image.shape))
    assert_array_equal(image.pixels[region], image.data[region])


@settings(max_examples=20)
@given(draw=st.data())
def test_a_region_of_a_coloured_volume_is_the_whole_cut_to_it(data: Path, draw: st.DataObject) -> None:
    image = coloured(data)
    region = draw.draw(regions(image.shape))
    assert_array_equal(image.pixels[region], image.data[region])


def test_a_region_reads_only_the_files_it_lies_in(tmp_path: Path) -> None:
    for n in range(3):
        write_slice(tmp_path / f"{n}.dcm", np.full((2, 2), n, np.uint16), position=(0, 0, n), SliceThickness=1)
    image = file_formats.read(tmp_path)
    (tmp_path / "0.dcm").unlink()  # whoever looked at it would fail
    assert image.pixels[:, :, :, 1:].tolist() == [[[[1, 2], [1, 2]], [[1, 2], [1, 2]]]]


def test_slices_of_different_types_share_one_that_holds_them_all(tmp_path: Path) -> None:
    for n, slope in enumerate((1, 0.5)):
        write_slice(
            tmp_path / f"{n}.dcm", np.full((2, 2), 3, np.uint16), position=(0, 0, n), SliceThickness=1,
            RescaleSlope=slope, RescaleIntercept=0,
        )  # fmt: skip
    image = file_formats.read(tmp_path)
    assert image.dtype == np.float32
    assert image.data[0, 0, 0].tolist() == [3, 1.5]


def coloured(data: Path, kept: dict[str, Any] = {}) -> Image:  # noqa: B006
    """Read once: every example looks at the same image."""
    return kept.setdefault("image", file_formats.read(data / "dicom" / "series" / "sc_rgb_volume_j2k"))
