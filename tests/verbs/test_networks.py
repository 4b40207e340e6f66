from __future__ import annotations

import isocenter
from isocenter.networks import Member
from isocenter.verbs.networks import NetworkTable


def test_the_table_has_a_line_for_each_member_with_its_numbers_in_short():
    one = Member("thin", 3, ("dense", "vector"), (64, 32, 32), 999, 15_302_918_144, "doi:10.1/x")
    lines = str(NetworkTable((one,))).splitlines()
    words = "thin every voxel, the image 3 64 x 32 x 32 999 15.3 G doi:10.1/x"
    assert lines[1].split() == words.split()
    assert NetworkTable((one,)).as_record()["rows"][0]["parameters"] == 999


def test_every_name_has_a_line():
    assert {member.name for member in isocenter.describe_networks().members} == set(isocenter.list_networks())
