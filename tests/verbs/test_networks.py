from __future__ import annotations

import subprocess
import sys

import pytest

import hilum
from hilum.networks import NETWORKS
from hilum.networks.layouts import weight_layout
from hilum.networks.member_catalogue import FamilyMember
from hilum.verbs.networks import NetworkTable


def test_the_table_has_a_line_for_each_member_with_its_numbers_in_short():
    one = FamilyMember("thin", 3, ("dense", "vector"), (64, 32, 32), 999, 15_302_918_144, "doi:10.1/x")
    lines = str(NetworkTable((one,))).splitlines()
    words = "thin every voxel, the image 3 64 x 32 x 32 999 15.3 G doi:10.1/x"
    assert lines[1].split() == words.split()
    assert NetworkTable((one,)).as_record()["rows"][0]["parameters"] == 999


FEW = {name: NETWORKS[name] for name in ("lenet", "vgg")}


@pytest.fixture
def few(monkeypatch: pytest.MonkeyPatch) -> None:
    """An index of two families."""
    monkeypatch.setattr("hilum.networks.factory.NETWORKS", FEW)


def test_every_name_has_a_line():
    assert {member.name for member in hilum.describe_networks().members} == set(hilum.list_networks())


def test_our_own_families_are_listed_without_torch():
    asks = "import hilum, sys; print(hilum.describe_networks()); sys.exit('torch' in sys.modules)"
    done = subprocess.run([sys.executable, "-c", asks], capture_output=True, text=True, check=False)
    assert (done.returncode, done.stdout) == (0, f"{hilum.describe_networks()}\n"), done.stderr


def test_a_family_of_another_package_is_built_whatever_its_name(few, monkeypatch, tmp_path):
    (tmp_path / "somebodys.py").write_text("from hilum.networks.lenet import LENET as FAMILY")
    monkeypatch.syspath_prepend(tmp_path)
    monkeypatch.setitem(FEW, "theirs", "somebodys:FAMILY")
    monkeypatch.setitem(FEW, "vgg", "somebodys:FAMILY")
    sizes = {name: set() for name in FEW}
    for one in hilum.describe_networks().members:
        sizes[one.name].add(one.parameters)
    assert sizes["lenet"] == sizes["theirs"] == sizes["vgg"]


def test_the_layouts_of_weights_are_listed_with_their_licences_and_what_a_test_compares(cli):
    listed = cli("networks", "weights").out
    for layout in weight_layout.weight_layouts():
        assert f"{layout.name}: {layout.what}" in listed
        assert f"weights {layout.licence_of_weights}" in listed
        assert layout.citation in listed
    assert len(hilum.describe_weights().table) == len(weight_layout.weight_layouts())
