from __future__ import annotations

import json
import math
from contextlib import contextmanager

import psutil
import pytest
import torch

from hilum.errors import ResourceError, UsageError
from hilum.runtime import hardware


def test_the_choice_comes_with_its_reason():
    chosen = hardware.choose_device("auto")
    assert torch.zeros(1, device=chosen.value).device.type in ("cpu", "cuda", "mps")
    assert ("no GPU was found" in chosen.because) == (chosen.value == "cpu")
    assert hardware.choose_device("cpu").because == "asked for"


@pytest.mark.parametrize("name", ["gpu", "cuda:x", "cuda:-1", "", "CPU", "cuda:0:1", "cuda:", "cuda:\u0663"])
def test_a_device_that_nobody_knows_is_wrong_use(name):
    with pytest.raises(UsageError, match="Choose auto, cpu, cuda:0 or mps"):
        hardware.choose_device(name)


def test_a_device_that_the_machine_lacks_is_refused():
    with pytest.raises(ResourceError, match=r"cuda:97 is not available \(\d+ found\)"):
        hardware.choose_device("cuda:97")


@pytest.fixture
def two_gpus(monkeypatch):
    """A GPU of 2017 beside one of 2022, as torch states them; the build has code for the first alone, or for both."""
    capabilities = [(7, 0), (9, 0)]
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 2)
    monkeypatch.setattr(torch.cuda, "get_device_capability", capabilities.__getitem__)
    monkeypatch.setattr(torch.cuda, "get_device_name", ["V100", "H100"].__getitem__)
    monkeypatch.setattr(torch.cuda, "get_arch_list", lambda: ["sm_70", "sm_90a"])
    return monkeypatch


@pytest.mark.parametrize(("name", "device"), [("cuda", "cuda:0"), ("cuda:1", "cuda:1"), ("cuda:01", "cuda:1")])
def test_a_gpu_has_one_name_whatever_it_is_called_by(name, device, two_gpus):
    assert hardware.choose_device(name).value == device
    two_gpus.setattr(torch.backends.mps, "is_available", lambda: True)
    assert hardware.choose_device("mps:0").value == "mps"


def test_a_gpu_that_torch_has_no_code_for_is_not_chosen(two_gpus):
    assert hardware.choose_device("auto").value == "cuda:0"
    two_gpus.setattr(torch.cuda, "get_arch_list", lambda: ["sm_75", "sm_86", "sm_90", "compute_120"])
    chosen = hardware.choose_device("auto")
    assert chosen.value == "cpu"
    assert chosen.because.endswith("no code for the GPU that is there: V100, compute capability 7.0")
    with pytest.raises(ResourceError, match=r"V100, compute capability 7\.0.*install a build of torch"):
        hardware.choose_device("cuda:0")
    assert hardware.choose_device("cuda:1").value == "cuda:1"
    for flags in (["gfx942"], ["sm_60", "compute_60"]):  # of another maker, and text for the driver to compile
        two_gpus.setattr(torch.cuda, "get_arch_list", lambda flags=flags: flags)
        assert hardware.choose_device("auto").value == "cuda:0"


def test_whether_half_the_bits_pay_is_asked_of_the_gpu_that_computes(two_gpus):
    current = [0]

    @contextmanager
    def made_current(device):
        current[0] = int(device.removeprefix("cuda:"))
        yield
        current[0] = 0

    two_gpus.setattr(torch.cuda, "device", made_current)
    two_gpus.setattr(torch.cuda, "is_bf16_supported", lambda including_emulation: current[0] == 1)
    assert [hardware.computes_bfloat16("cuda:0"), hardware.computes_bfloat16("cuda:1")] == [False, True]


def test_memory_of_a_gpu_that_an_earlier_training_here_has_freed_is_counted_as_free(monkeypatch):
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (10, 80))
    monkeypatch.setattr(torch.cuda, "memory_reserved", lambda device: 60)
    monkeypatch.setattr(torch.cuda, "memory_allocated", lambda device: 5)
    assert hardware.gpu_memory("cuda:0") == 65


def test_whether_half_the_bits_pay_is_known_for_every_device():
    assert isinstance(hardware.computes_bfloat16("cpu"), bool)
    assert not hardware.computes_bfloat16("mps")


def test_the_environment_names_machine_and_versions_and_fits_into_json():
    found = json.loads(json.dumps(hardware.machine_environment()))
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
    assert hardware.control_group_memory(group(tmp_path / "second", "1000")) == 800
    assert hardware.control_group_memory(group(tmp_path / "first", "900", names=old)) == 700
    assert hardware.control_group_memory(tmp_path / "second", tmp_path / "first") == 700


def test_without_a_limit_the_machine_decides(tmp_path):
    assert hardware.control_group_memory(group(tmp_path / "free", "max"), tmp_path / "none") == math.inf
    assert 0 < hardware.available_host_memory() <= psutil.virtual_memory().total


def test_a_group_that_has_taken_all_is_left_nothing(tmp_path):
    assert hardware.control_group_memory(group(tmp_path / "full", "150")) == 0
