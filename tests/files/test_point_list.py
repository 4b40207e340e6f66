"""Points of other programs lie where these place them, or are named with the way out."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from numpy.testing import assert_allclose

from hilum.errors import FormatError
from hilum.files import point_list

FCSV = """# Markups fiducial file version = 4.11
# CoordinateSystem = {axes}
# columns = id,x,y,z,ow,ox,oy,oz,vis,sel,lock,label,desc,associatedNodeID
1,10,-20,30.5,0,0,0,1,1,1,0,apex,,
2,-1,2,3,0,0,0,1,1,1,0,,,
"""


@pytest.mark.parametrize(("axes", "sign"), [("LPS", -1), ("1", -1), ("RAS", 1), ("0", 1)])
def test_points_of_slicer_are_ras_whatever_axes_they_are_kept_in(tmp_path: Path, axes: str, sign: int) -> None:
    (tmp_path / "f.fcsv").write_text(FCSV.format(axes=axes))
    found = point_list.read_points(tmp_path / "f.fcsv", 3)
    assert found["name"].tolist() == ["apex", "2"]
    assert_allclose(found[["x", "y", "z"]], [[sign * 10, sign * -20, 30.5], [-sign, sign * 2, 3]])


def test_markups_of_slicer_in_json_are_read(tmp_path: Path) -> None:
    point = {"id": "1", "label": "apex", "position": [10.0, -20.0, 30.5]}
    markup = {"type": "Fiducial", "coordinateSystem": "LPS", "controlPoints": [point]}
    (tmp_path / "f.mrk.json").write_text(json.dumps({"markups": [markup]}))
    found = point_list.read_points(tmp_path / "f.mrk.json", 3)
    assert_allclose(found[["x", "y", "z"]], [[-10, 20, 30.5]])


@pytest.mark.parametrize(
    ("name", "text", "what"),
    [
        ("p.txt", "point\n1\n1 2 3\n", "points of elastix.*LPS"),
        ("p.txt", "index\n1\n1 2 3\n", "indices of elastix"),
        ("p.tag", "MNI Tag Point File\nVolumes = 1;\n", "tags of MINC"),
        ("p.label", "#!ascii label , from subject\n1\n0 1 2 3 0\n", "a label of FreeSurfer"),
        ("p.fcsv", FCSV.format(axes="IJK"), "states points in 'IJK'"),
        ("p.mrk.json", "{}", "no list of markups"),
    ],
)
def test_other_lists_are_named_with_the_way_out(tmp_path: Path, name: str, text: str, what: str) -> None:
    (tmp_path / name).write_text(text)
    with pytest.raises(FormatError, match=what):
        point_list.read_points(tmp_path / name, 3)
