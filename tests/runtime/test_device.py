from __future__ import annotations

import json
import math

import psutil
import pytest
import torch

from isocenter.errors import ResourceError, UsageError
from isocenter.runtime import available_memory, bf16_pays, choose_device, environment
from isocenter.runtime.device import left_to_group


def test_the_choice_comes_with_its_reason():
    chosen = choose_device("auto")
    assert torch.zeros(1, device=chosen.value).device.type in ("cpu", "cuda", "mps")
    assert ("no GPU was found" in chosen.because) == (chosen.value == "cpu")
    assert choose_device("cpu").because == "asked for"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "", "CPU", "cuda:0:1"])
def test_a_device_that_nobody_knows_is_wrong_use(name):
    with pytest.raises(UsageError, match="Choose auto, cpu, cuda:0 or mps"):
        choose_device(name)


def test_a_device_that_the_machine_lacks_is_refused():
    with pytest.raises(ResourceError, match=r"cuda:97 is not available \(\d+ found\)"):
        choose_device("cuda:97")


def test_whether_half_the_bits_pay_is_known_for_every_device():
    assert isinstance(bf16_pays("cpu"), bool)
    assert not bf16_pays("mps")


def test_the_environment_names_machine_and_versions_and_fits_into_json():
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["memory_gib"] > 0
    assert found["cores"] >= 1


def group(folder, limit, *, names=("memory.max", "memory.current", "inactive_file")):
    """What Linux shows of a control group that has taken 300 bytes, 100 of them cache of files."""
    folder.mkdir()
    for name, text in ((names[0], limit), (names[1], "300"), ("memory.stat", f"anon 200\n{names[2]} 100")):
        (folder / name).write_text(f"{text}\n")
    return folder


def test_a_container_may_take_what_its_limit_leaves_and_files_that_are_cached_are_not_counted(tmp_path):
    old = ("memory.limit_in_bytes", "memory.usage_in_bytes", "total_inactive_file")
    assert left_to_group(group(tmp_path / "second", "1000")) == 800
    assert left_to_group(group(tmp_path / "first", "900", names=old)) == 700
    assert left_to_group(tmp_path / "second", tmp_path / "first") == 700


def test_without_a_limit_the_machine_decides(tmp_path):
    assert left_to_group(group(tmp_path / "free", "max"), tmp_path / "none") == math.inf
    assert 0 < available_memory() <= psutil.virtual_memory().total


def test_a_group_that_has_taken_all_is_left_nothing(tmp_path):
    assert left_to_group(group(tmp_path / "full", "150")) == 0
