from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.testing import assert_array_equal

from isocenter import tasks
from isocenter.runtime import Inference, Model, Preprocessing, TorchNetwork, averaged_model
from isocenter.runtime.ensemble.weight_offload import Visiting, fit_on_device, on_device
from isocenter.transforms import Normalisation

TASK = tasks.build({"name": "classification", "classes": ["a", "b"], "smoothing": 0.0})


class Noted(torch.nn.Linear):
    """One layer that remembers where it was sent."""

    def __init__(self, seed: int) -> None:
        super().__init__(4, 2)
        torch.nn.init.constant_(self.weight, seed)
        self.sent: list[str] = []

    def to(self, device):
        self.sent.append(str(device))
        return super().to(device)

    def forward(self, images):
        return {"class": super().forward(images.flatten(1))}


def several(*seeds: int) -> Model:
    preprocessing = Preprocessing(2, ("K",), (Normalisation("zscore"),), shape=(2, 2))
    each = [
        Model(TASK, preprocessing, Inference((2, 2)), {"name": "linear"}, TorchNetwork(Noted(seed).eval()))
        for seed in seeds
    ]
    return averaged_model(each, TASK, Inference((2, 2)))


def test_a_member_that_visits_a_device_goes_back_after_its_turn_and_says_the_same():
    images = np.ones((3, 1, 2, 2), np.float32)
    [one] = several(2).members
    visiting = Visiting(one.module, "cpu")
    assert_array_equal(visiting(images)["class"], TorchNetwork(one.module)(images)["class"])
    assert one.module.sent == ["cpu", "cpu"]  # there, and back


def test_members_that_do_not_fit_on_a_device_together_rest_in_the_machines_memory(monkeypatch, tmp_path):
    (tmp_path / "weights").write_bytes(b"0" * 600)
    files: list[Path] = [tmp_path / "weights"] * 2
    assert fit_on_device(files, "cpu")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2400, 10_000))
    assert fit_on_device(files, "cuda:0")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2399, 10_000))
    assert not fit_on_device(files, "cuda:0")
    model = several(1, 2)
    at_home = on_device(model, files, "cuda:0")
    assert all(isinstance(one, Visiting) and one.device == "cuda:0" for one in at_home.members)
    assert all(one.module.weight.device.type == "cpu" for one in at_home.members)
    assert [type(one) for one in on_device(model, files, "cpu").members] == [TorchNetwork, TorchNetwork]


def test_members_of_one_family_have_one_architecture_and_shares_make_another_model():
    model = several(1, 2)
    assert model.architectures == ()
    assert model.networks == ({"name": "linear"},) * 2
    weighed = averaged_model(
        [replace(model, run=one) for one in model.members], TASK, Inference((2, 2)), shares=(0.25, 0.75)
    )
    assert weighed.shares == (0.25, 0.75)
    assert weighed.record["weights_sha256"] != model.record["weights_sha256"]
