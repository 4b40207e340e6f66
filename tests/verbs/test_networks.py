from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

import isocenter
from isocenter.networks import NETWORKS, Member
from isocenter.verbs.networks import NetworkTable


def test_the_table_has_a_line_for_each_member_with_its_numbers_in_short():
    one = Member("thin", 3, ("dense", "vector"), (64, 32, 32), 999, 15_302_918_144, "doi:10.1/x")
    lines = str(NetworkTable((one,))).splitlines()
    words = "thin every voxel, the image 3 64 x 32 x 32 999 15.3 G doi:10.1/x"
    assert lines[1].split() == words.split()
    assert NetworkTable((one,)).as_record()["rows"][0]["parameters"] == 999


FEW = {name: NETWORKS[name] for name in ("lenet", "vgg")}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Path:
    """An index of two families, and the file that keeps what was found."""
    monkeypatch.setattr("isocenter.networks.factory.NETWORKS", FEW)
    monkeypatch.setenv("ISOCENTER_CACHE", str(tmp_path))
    return tmp_path / "networks.json"


def test_every_name_has_a_line(few):
    assert {member.name for member in isocenter.describe_networks().members} == set(isocenter.list_networks())


def test_what_was_found_is_kept_and_read_again_without_torch(few):
    first = isocenter.describe_networks()
    asks = "import isocenter, isocenter.networks.factory as n, sys; "
    asks += f"n.NETWORKS = {FEW!r}; print(isocenter.describe_networks()); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{first}\n"), done.stderr


DAMAGES = {
    "cut off": lambda text: text[:-9],
    "of other files": lambda text: text.replace('"made_with":"', '"made_with":"0'),
}


@pytest.mark.parametrize("damage", DAMAGES.values(), ids=DAMAGES)
def test_what_was_kept_of_other_files_or_is_damaged_is_found_anew(few, damage):
    first = isocenter.describe_networks()
    whole = few.read_text()
    few.write_text(damage(whole).replace("lenet", "older"))
    assert isocenter.describe_networks() == first
    assert few.read_text() == whole


def test_a_family_of_another_package_is_built_each_time(few, monkeypatch, tmp_path):
    (tmp_path / "somebodys.py").write_text("from isocenter.networks.lenet import LENET as FAMILY")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FEW, "theirs", "somebodys:FAMILY")
    assert {one.name for one in isocenter.describe_networks().members} == {"lenet", "theirs", "vgg"}
    assert "theirs" not in few.read_text()


def test_where_nothing_can_be_kept_the_table_is_the_same(few):
    first = isocenter.describe_networks()
    few.unlink()
    few.mkdir()
    assert isocenter.describe_networks() == first
