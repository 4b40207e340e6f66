from __future__ import annotations

import json

import pytest
import torch

from isocenter.errors import ResourceError, UsageError
from isocenter.runtime import bf16_pays, choose_device, environment


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
    with pytest.raises(ResourceError, match=r"cuda:97 is not there \(\d+ found\)"):
        choose_device("cuda:97")


def test_whether_half_the_bits_pay_is_known_for_every_device():
    assert isinstance(bf16_pays("cpu"), bool)
    assert not bf16_pays("mps")


def test_the_environment_names_machine_and_versions_and_fits_into_json():
    found = json.loads(json.dumps(environment()))
    assert found["versions"]["torch"] == torch.__version__.partition("+")[0]
    assert found["memory_gib"] > 0
    assert found["cores"] >= 1
