"""What changed since an earlier study: phantoms whose volumes are known, answered by a model that thresholds."""

from __future__ import annotations

import json
from dataclasses import replace

import numpy as np
import pandas as pd
import pytest
from numpy.testing import assert_allclose
from scipy import ndimage

import hilum
from hilum.errors import UsageError
from hilum.values import Geometry, Image
from service import thresholds

SHAPE, LEVEL = (26, 28, 22), 80.0
GRID = Geometry(SHAPE, np.diag([1.0, 1.0, 1.2, 1.0]))


def head(balls, *, shift=(0.0, 0.0, 0.0), seed=7):
    """Smooth tissue below 50 with balls of 100, ((mm), radius), all of it moved by mm."""
    points = np.moveaxis(GRID.to_world(np.moveaxis(np.indices(SHAPE), 0, -1)), -1, 0)
    tissue = ndimage.gaussian_filter(np.random.default_rng(seed).normal(size=SHAPE), 2.5)
    tissue = ndimage.shift(tissue, np.divide(shift, GRID.steps), order=1, mode="nearest")
    values = 20 + 25 * tissue / np.abs(tissue).max()
    for place, radius in balls:
        away = np.linalg.norm(points - (np.add(place, shift))[:, None, None, None], axis=0)
        values += np.clip((100 - values) * (radius + 0.5 - away), 0, 100 - values)
    return Image(values[None].astype(np.float32), GRID, channels=("image",))


BALL, SPOT = (12, 13, 13), (20, 21, 8)
SHIFT = (1.5, -2.0, 1.2)


@pytest.fixture(scope="module")
def model(tmp_path_factory):
    """One that calls what is bright, and whose repeated measurements differ by at most 4 %."""
    loaded = hilum.load(thresholds.threshold_model(tmp_path_factory.mktemp("model"), LEVEL))
    return replace(loaded, record={**loaded.record, "repeatability": {"bright": 4.0}})


@pytest.fixture(scope="module")
def followed(model, tmp_path_factory):
    """A structure that shrank from 6 to 5.6 mm while its patient moved, and a spot that is gone; half a year later."""
    out, now = tmp_path_factory.mktemp("followed") / "out", head([(BALL, 5.6)], shift=SHIFT)
    before = head([(BALL, 6.0), (SPOT, 2.2)])
    return hilum.predict(model, now, prior=before, lesions=["bright"], days=182.625, out=out)


def test_a_structure_that_shrank_elsewhere_is_stated_with_its_change_a_year(followed):
    table = pd.read_csv(followed.out / "change.csv")
    assert list(table.columns) == ["label", "before", "now", "difference", "percent", "days", "percent_a_year"]
    [row] = table.to_dict("records")
    assert row["label"] == "bright"
    assert_allclose(row["percent"], 100 * (5.6**3 / (6**3 + 2.2**3) - 1), atol=2)
    assert_allclose(row["difference"], row["now"] - row["before"], atol=1e-5)
    assert_allclose(row["percent_a_year"], 2 * row["percent"], atol=1e-4)


def test_the_change_stands_behind_its_structure_with_the_limits_of_repeated_measurements(followed):
    names = [one.concept for one in followed.findings.rows]
    assert names[-1] == "change", "it follows the size of its structure and its measurements"
    change, [row] = followed.findings.rows[-1], followed.change.table.to_dict("records")
    assert (change.group, change.unit) == ("bright", "%")
    reach = 4.0 * (row["before"] + row["now"]) / (2 * row["before"])
    assert_allclose([change.low, change.high], [row["percent"] - reach, row["percent"] + reach], atol=1e-5)
    assert "beyond the limits of repeated measurements" in repr(followed)


def test_each_lesion_is_followed_and_the_response_is_by_measurement_alone(followed):
    table = pd.read_csv(followed.out / "lesions.csv").set_index("lesion")
    assert dict(table["state"]) == {1: "matched", 2: "gone"}
    assert json.loads((followed.out / "response.json").read_text())["recist"]["response"] == "SD"
    assert {"change.csv", "lesions.csv", "response.json"} <= {path.name for path in followed.files}


def test_two_contents_that_agree_no_better_than_shuffled_ones_give_no_change(model, tmp_path):
    done = hilum.predict(model, head([(BALL, 6.0)]), prior=head([(SPOT, 3.0)], seed=1), out=tmp_path / "out")
    assert done.change.refusal
    assert "no change since the earlier study is stated" in repr(done)
    assert not (tmp_path / "out" / "change.csv").exists()
    assert "change" not in {one.concept for one in done.findings.rows}


def test_an_earlier_image_of_another_modality_gives_no_change_and_says_so(model):
    now, before = (replace(head([(BALL, 6.0)]), modality=one) for one in ("MR", "CT"))
    assert "another modality (CT, not MR)" in hilum.predict(model, now, prior=before).change.refusal


def test_what_is_said_of_an_earlier_study_without_one_is_refused(model):
    with pytest.raises(UsageError, match="Give it"):
        hilum.predict(model, head([]), lesions=["bright"])
    with pytest.raises(UsageError, match="marks no tumour"):
        hilum.predict(model, head([]), prior=head([]), lesions=["tumour"])
    with pytest.raises(UsageError, match="2 cases"):
        hilum.predict(model, [head([]), head([])], prior=head([]))
