from __future__ import annotations

import time
from concurrent.futures import ThreadPoolExecutor
from dataclasses import replace
from pathlib import Path

import numpy as np
import torch
from numpy.testing import assert_array_equal

from hilum.runtime import Model, Preprocessing, ensemble
from hilum.runtime.ensemble import VisitingNetwork
from hilum.runtime.inference import Inference
from hilum.runtime.torch_networks import Networks, TorchNetwork, WatchedNetwork
from hilum.runtime.windows.averaging import POOLED
from hilum.tasks import task_catalogue
from hilum.transforms.intensity import Normalisation

TASK = task_catalogue.build_task({"name": "classification", "classes": ["a", "b"], "smoothing": 0.0})


class Noted(torch.nn.Linear):
    """One layer that remembers where it was sent."""

    def __init__(self, seed: int) -> None:
        super().__init__(4, 2)
        torch.nn.init.constant_(self.weight, seed)
        self.deepest = torch.nn.Identity()
        self.sent: list[str] = []

    def to(self, device):
        self.sent.append(str(device))
        return super().to(device)

    def forward(self, images):
        self.sent.append("computes")
        time.sleep(0.01)
        return {"class": super().forward(self.deepest(images.flatten(1)))}


def several(*seeds: int) -> Model:
    preprocessing = Preprocessing(2, ("K",), (Normalisation("zscore"),), shape=(2, 2))
    each = [
        Model(TASK, preprocessing, Inference((2, 2)), Networks(TorchNetwork(Noted(seed).eval()), {"name": "linear"}))
        for seed in seeds
    ]
    return ensemble.averaged_model(each, TASK, Inference((2, 2)))


def test_a_member_that_visits_a_device_goes_back_after_its_turn_and_says_the_same():
    images = np.ones((3, 1, 2, 2), np.float32)
    [one] = several(2).networks.members
    visiting = VisitingNetwork(one.module, "cpu", resting=one)
    assert_array_equal(visiting(images)["class"], TorchNetwork(one.module)(images)["class"])
    turn = ["cpu", "computes", "cpu"]  # there, and back
    assert one.module.sent == [*turn, "computes"]
    with ThreadPoolExecutor(3) as pool:  # which share a model
        list(pool.map(visiting, [images] * 3))
    assert one.module.sent[4:] == turn * 3


def test_members_that_visit_a_device_give_the_features_at_which_the_gate_looks(monkeypatch, tmp_path):
    monkeypatch.setattr(ensemble, "may_fit_on_device", lambda weights, device: False)
    model, images = several(1, 2), np.ones((3, 1, 2, 2), np.float32)
    looked_at = WatchedNetwork(model.networks.members[0].module, at="deepest")
    watched = model.with_run(replace(model.networks.run, members=(looked_at, model.networks.members[1])))
    there = ensemble.place_on_device(watched, [tmp_path, tmp_path], "cpu")
    assert_array_equal(there.networks.run(images)[POOLED], watched.networks.run(images)[POOLED])


def test_weights_that_lie_on_a_device_already_need_no_room_there(monkeypatch, tmp_path):
    asked = []
    monkeypatch.setattr(ensemble, "may_fit_on_device", lambda weights, device: asked.append(list(weights)) or True)
    model = several(1, 2)
    for device in ("cpu", "meta", "meta"):
        model = ensemble.place_on_device(model, [tmp_path] * 2, device)
    assert asked == [[], [tmp_path] * 2, []]


def test_members_that_do_not_fit_on_a_device_together_rest_in_the_machines_memory(monkeypatch, tmp_path):
    (tmp_path / "weights").write_bytes(b"0" * 600)
    files: list[Path] = [tmp_path / "weights"] * 2
    assert ensemble.may_fit_on_device(files, "cpu")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2400, 10_000))
    assert ensemble.may_fit_on_device(files, "cuda:0")
    monkeypatch.setattr(torch.cuda, "mem_get_info", lambda device: (2399, 10_000))
    assert not ensemble.may_fit_on_device(files, "cuda:0")
    model = several(1, 2)
    at_home = ensemble.place_on_device(model, files, "cuda:0")
    assert all(isinstance(one, VisitingNetwork) and one.device == "cuda:0" for one in at_home.networks.members)
    assert all(one.module.weight.device.type == "cpu" for one in at_home.networks.members)
    assert [type(one) for one in ensemble.place_on_device(model, files, "cpu").networks.members] == [
        TorchNetwork,
        TorchNetwork,
    ]


def test_members_of_one_family_have_one_architecture_and_shares_make_another_model():
    model = several(1, 2)
    assert model.networks.unlike == ()
    assert model.networks.architectures == ({"name": "linear"},) * 2
    weighed = ensemble.averaged_model(
        [model.with_run(one) for one in model.networks.members], TASK, Inference((2, 2)), shares=(0.25, 0.75)
    )
    assert weighed.networks.shares == (0.25, 0.75)
    assert weighed.record["weights_sha256"] != model.record["weights_sha256"]
