"""Networks of bags as two ONNX graphs, held to torch on whole bags."""

from __future__ import annotations

from pathlib import Path

import numpy as np
import pytest
import torch
from numpy.testing import assert_allclose

from hilum.networks import factory
from hilum.runtime import Model, Preprocessing
from hilum.runtime.inference import Inference
from hilum.runtime.package import bag_export
from hilum.runtime.package.backends import onnx
from hilum.runtime.package.onnx_export import FurtherOutputs
from hilum.runtime.package.package_contents import ONNX
from hilum.runtime.preprocessing.slide_tiles import Tiles
from hilum.runtime.torch_networks import Networks, TorchNetwork, WatchedNetwork
from hilum.runtime.windows.averaging import ATTENTION, POOLED, AveragedNetwork
from hilum.tasks import task_catalogue
from hilum.transforms import COLOUR
from hilum.transforms.intensity import Normalisation

torch.set_num_threads(1)

TASK = task_catalogue.build_task({"name": "classification", "classes": ["plain", "marked"]})
SIDE = 32


def model_of(name: str, encoder: list[str], members: int = 1) -> Model:
    size = {"encoder": encoder, "maps": 4, **({"stages": 2, "width": 16} if name == "slide_windows" else {})}
    torch.manual_seed(0)
    own = [TorchNetwork(factory.build(name, 3, 3, TASK.heads, size).eval()) for _ in range(members)]
    run = own[0] if members == 1 else AveragedNetwork(tuple(own), TASK.average, (0.25, 0.75))
    scales = (Normalisation("range", 0, 255),) * 3
    preparing = Preprocessing(3, COLOUR, scales, tiles=Tiles(SIDE, 0.0005, 5))
    architecture = {"name": name, "channels": 3, "spatial_dims": 3, "size": size}
    return Model(TASK, preparing, Inference((5, SIDE, SIDE), 0.0), Networks(run, architecture))


@pytest.mark.parametrize(
    ("name", "encoder", "members"),
    [
        ("mil_attention", ["colour"], 2),
        pytest.param("slide_windows", ["colour"], 1, marks=pytest.mark.whole),
        pytest.param("mil_top", ["colour"], 1, marks=pytest.mark.whole),
        pytest.param("mil_attention", ["colour", "trained"], 1, marks=pytest.mark.whole),
        pytest.param("slide_windows", ["frozen", "trained"], 2, marks=pytest.mark.whole),
    ],
)
def test_both_graphs_answer_a_bag_as_torch_does(name, encoder, members, tmp_path):
    model = model_of(name, encoder, members)
    (tmp_path / "models").mkdir()
    modules = [one.module for one in model.networks.members]
    made = bag_export.write_halves(model, modules, tmp_path)
    assert made["exported"], made
    heads = (*TASK.heads, ATTENTION)
    graphs = onnx.open_onnx(tmp_path / ONNX, heads, ["CPUExecutionProvider"], 1)
    generator = np.random.default_rng(0)
    for count in (1, 7, 130):
        tiles = generator.random((count, 3, SIDE, SIDE), dtype=np.float32)
        spots = generator.permutation(400)[:count]
        places = np.stack([spots // 20, spots % 20], axis=1)[None]
        ours, theirs = (
            network.pooled([one[None] for one in network.encoded(tiles)], places)
            for network in (model.networks.run, graphs)
        )
        assert list(theirs) == list(heads)
        for head in heads:
            assert_allclose(theirs[head], ours[head], atol=1e-5, rtol=1e-4)


def test_both_files_stand_in_the_record_of_a_package_with_the_features_that_its_gate_needs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
):
    (tmp_path / "models").mkdir()
    gated = bag_export.FurtherOutputs("summary", pooled=True)
    monkeypatch.setattr(bag_export.FurtherOutputs, "from_model", lambda _: gated)
    model = model_of("mil_top", ["colour"])
    made = bag_export.write_halves(model, [model.networks.run.module], tmp_path)
    assert made["features"], made
    assert sorted(onnx.onnx_files({"onnx": made})) == sorted(
        path.relative_to(tmp_path).as_posix() for path in (tmp_path / "models").iterdir()
    )


def test_the_features_that_a_gate_asks_for_come_from_the_half_that_pools(tmp_path, monkeypatch):
    monkeypatch.setattr(FurtherOutputs, "from_model", classmethod(lambda cls, _: cls("summary", pooled=True)))
    (tmp_path / "models").mkdir()
    model = model_of("mil_attention", ["colour"])
    made = bag_export.write_halves(model, [model.networks.run.module], tmp_path)
    assert made["exported"], made
    assert made["features"]
    graphs = onnx.open_onnx(tmp_path / ONNX, (*TASK.heads, POOLED, ATTENTION), ["CPUExecutionProvider"], 1)
    tiles = np.random.default_rng(0).random((5, 3, SIDE, SIDE), dtype=np.float32)
    places = np.stack([np.arange(5), np.arange(5)], axis=1)[None]
    watched = WatchedNetwork(model.networks.run.module, at="summary")
    ours, theirs = (one.pooled([part[None] for part in one.encoded(tiles)], places) for one in (watched, graphs))
    assert_allclose(theirs[POOLED], ours[POOLED], atol=1e-5)
