"""Tables of samples as images of one axis."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from numpy.testing import assert_allclose, assert_array_equal

import hilum
import simulated_in_time
from hilum.errors import FormatError, GeometryError
from hilum.layouts import dataset_layouts
from hilum.values import Geometry, Image


def test_a_table_of_samples_is_an_image_of_one_axis_in_seconds(tmp_path):
    path = simulated_in_time.table(tmp_path / "x.csv", {"I": np.arange(5.0), "II": np.arange(5.0) ** 2}, step=0.004)
    image = hilum.read(path)
    assert (image.channels, image.shape, image.geometry.unit) == (("I", "II"), (2, 5), "s")
    assert image.spacing == pytest.approx((0.004,))
    assert_array_equal(image.data[1], [0, 1, 4, 9, 16])


@pytest.mark.parametrize(
    ("title", "places", "unit", "step"),
    [
        ("time [ms]", [0, 2, 4, 6], "s", 0.002),
        ("t_min", [0, 1, 2, 3], "s", 60.0),
        ("ppm", [4.0, 3.9, 3.8, 3.7], "ppm", 0.1),
        ("Wavenumber (cm-1)", [400, 402, 404, 406], "cm-1", 2.0),
    ],
)
def test_an_axis_is_known_by_its_name_and_unit(tmp_path, title, places, unit, step):
    (tmp_path / "x.csv").write_text("\n".join([f"{title};a", *(f"{place};1" for place in places)]))
    image = hilum.read(tmp_path / "x.csv")
    assert image.geometry.unit == unit
    assert image.spacing == pytest.approx((step,))
    assert_allclose(image.geometry.to_world([[3]]), [[places[3] * (step / abs(places[1] - places[0]))]])


def test_a_time_without_a_unit_is_counted_in_samples_and_said_so(tmp_path):
    (tmp_path / "x.csv").write_text("time,a\n0,1\n1,2\n2,3\n3,4\n4,5\n")
    image = hilum.read(tmp_path / "x.csv")
    assert image.spacing is None
    assert "no known unit" in image.notes[0]


def test_uneven_steps_are_refused(tmp_path):
    (tmp_path / "x.csv").write_text("time (s),a\n0,1\n1,2\n3,3\n4,4\n")
    with pytest.raises(GeometryError, match="uneven"):
        hilum.read(tmp_path / "x.csv")


def test_text_among_numbers_is_refused_and_a_blank_is_no_measurement(tmp_path):
    (tmp_path / "x.csv").write_text("time (s),a\n0,1\n1,off\n2,3\n")
    with pytest.raises(FormatError, match="text"):
        hilum.read(tmp_path / "x.csv")
    (tmp_path / "y.csv").write_text("time (s),a\n0,1\n1,\n2,3\n")
    assert_array_equal(hilum.read(tmp_path / "y.csv").valid, [[True, False, True]])


@given(
    st.integers(2, 40),
    st.integers(1, 3),
    st.floats(1e-4, 1e3),
    st.floats(-1e3, 1e3),
    st.sampled_from(["s", "ppm", "Hz"]),
)
def test_what_is_written_is_read_again(tmp_path_factory, samples, channels, step, start, unit):
    grid = Geometry((samples,), np.array([[step, start], [0, 1]]), oriented=False, unit=unit)
    image = Image(np.random.default_rng(0).normal(size=(channels, samples)), grid)
    path = tmp_path_factory.mktemp("series") / "x.csv"
    hilum.write(image, path)
    again = hilum.read(path)
    assert again.geometry.unit == unit
    assert_allclose(again.geometry.affine, grid.affine, rtol=1e-6, atol=1e-6)
    assert_array_equal(again.data, image.data)


def test_one_list_of_numbers_is_a_series_and_several_of_one_length_are_its_channels(tmp_path):
    np.save(tmp_path / "x.npy", np.arange(7.0))
    assert hilum.read(tmp_path / "x.npy").shape == (1, 7)
    np.savez(tmp_path / "y.npz", **{"time (s)": np.arange(7) * 0.1, "flow": np.arange(7.0)})
    image = hilum.read(tmp_path / "y.npz")
    assert (image.channels, image.spacing) == (("flow",), pytest.approx((0.1,)))


def test_a_table_of_cases_is_no_series_and_a_series_no_table_of_cases(tmp_path):
    simulated_in_time.electrocardiograms(tmp_path / "data", 3)
    dataset = dataset_layouts.read_dataset(tmp_path / "data")
    assert [case.id for case in dataset] == ["patient00", "patient01", "patient02"]
    assert next(iter(dataset)).references["mask"].geometry.unit == "s"
    (tmp_path / "cases.csv").write_text("image,label\ndata/images/patient00.csv,a\ndata/images/patient01.csv,b\n")
    assert dataset_layouts.read_dataset(tmp_path / "cases.csv").layout.startswith("table cases.csv")


def test_space_is_in_mm_alone():
    with pytest.raises(GeometryError, match="mm"):
        Geometry((4, 4), np.eye(3), unit="s")
