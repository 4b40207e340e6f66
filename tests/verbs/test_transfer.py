"""`train --from`: the plan that a source gives, what moves, and what a run keeps of it."""

from __future__ import annotations

import signal
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import timm
import torch
from safetensors.numpy import load_file

import hilum
import trained
from hilum.errors import IntegrityError, PlanError
from hilum.networks import factory
from hilum.planning import plan_file
from hilum.runtime import record_files
from hilum.runtime.package import readme
from hilum.values import prediction
from matrices import rarely

FIXED = {"training.ema": 0.0, "training.compute": "eager"}


def started(source: Path, data: Path, out: Path, **chosen: Any) -> Path:
    """A run of six steps from the weights of another."""
    trained.classifying(data, out, start=source, assignments={**FIXED, **chosen})
    return out


def rows_of(run: Path) -> list[dict[str, Any]]:
    return record_files.read_json(run / "transfer.json", "hilum.transfer")["rows"]


def weights_in(run: Path) -> dict[str, np.ndarray]:
    return load_file(run / "checkpoints" / "last" / "weights.safetensors")


@pytest.fixture(scope="module")
def others(tmp_path_factory) -> Path:
    """Other pictures of the same two classes."""
    return trained.pictures(tmp_path_factory.mktemp("others"), 24, first=100)


@pytest.mark.parametrize("mode", [rarely("linear_probe"), "lora"])
def test_what_stands_still_is_that_of_the_source(classified, others, tmp_path, mode):
    run = started(classified.out, others, tmp_path / "run", **{"transfer.mode": mode, "transfer.rank": 2})
    source, after = load_file(classified.out / "checkpoints" / "best" / "weights.safetensors"), weights_in(run)
    assert set(source) == set(after)
    still = {row["name"] for row in rows_of(run) if not row["trained"]}
    assert still
    assert all(np.array_equal(source[name], after[name]) for name in still)
    moved = {name for name in after if not np.array_equal(source[name], after[name])}
    assert "vectors.class.weight" in moved
    assert any(name.startswith("body") and after[name].ndim > 1 for name in moved) == (mode == "lora")


@pytest.mark.parametrize("mode", ["linear_probe", "lora"])
@pytest.mark.whole
def test_a_killed_run_of_which_a_part_stands_still_goes_on_bit_by_bit(classified, others, tmp_path, mode):
    chosen = {"transfer.mode": mode, "transfer.rank": 2}
    whole = started(classified.out, others, tmp_path / "whole", **chosen)

    def pressed(moment):
        if moment.step == 3:
            signal.raise_signal(signal.SIGINT)

    with trained.watching(pressed), pytest.raises(KeyboardInterrupt):
        started(classified.out, others, tmp_path / "run", **chosen)
    hilum.train(resume=tmp_path / "run")
    for name in ("weights", "module", "optimiser"):
        ours, theirs = (load_file(run / f"checkpoints/last/{name}.safetensors") for run in (whole, tmp_path / "run"))
        assert {key: value.tobytes() for key, value in ours.items()} == {k: v.tobytes() for k, v in theirs.items()}


@pytest.mark.whole
def test_the_plan_takes_network_and_grid_of_the_source_and_what_is_set_by_hand_wins(classified, others, tmp_path):
    size = {"width": 4, "blocks": [1, 1], "stem_stride": 1}
    out = tmp_path / "run"
    assignments = {**trained.TWO_STEPS, "transfer.layer_decay": 0.5}
    run = hilum.train(others, out=out, start=classified.out, device="cpu", threads=1, assignments=assignments)
    plan = plan_file.read_plan(out / "plan.yaml")
    assert plan["network.size"] == size
    for name in ("network.name", "network.size", "preprocessing.shape"):
        assert plan.decision(name).because.startswith("as in the source of the weights, ")
    assert plan["transfer.mode"] == "full"
    rows = rows_of(out)
    assert {row["how"] for row in rows} == {"copied"}
    assert {row["group"] for row in rows} == {"encoder", "head"}
    assert all(row["trained"] for row in rows)
    assert "tensors came from other weights (" in run.report.read_text()


@pytest.mark.whole
def test_a_probe_without_source_is_refused_before_a_run_begins(classified, tmp_path):
    with pytest.raises(PlanError, match="linear_probe needs weights"):
        trained.classifying(classified.data, tmp_path / "run", assignments={"transfer.mode": "linear_probe"})
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04cut"], ids=["empty", "cut"])
def test_a_torch_file_that_is_none_is_refused_before_a_run_begins(classified, tmp_path, content):
    (tmp_path / "weights.pth").write_bytes(content)
    with pytest.raises(IntegrityError, match="holds no weights"):
        started(tmp_path / "weights.pth", classified.data, tmp_path / "run")
    assert not (tmp_path / "run").exists()


def test_weights_for_volumes_are_refused_for_pictures(classified, tmp_path):
    size = trained.SMALL_RESNET
    volumes = factory.build("resnet", 1, 3, {"class": prediction.Vector(2)}, size)
    torch.save(volumes.state_dict(), tmp_path / "volumes.pt")
    with pytest.raises(PlanError, match="for images of 3 axes, and this network has 2"):
        started(tmp_path / "volumes.pt", classified.data, tmp_path / "run")


@pytest.mark.whole
def test_a_file_of_another_program_gives_the_network_and_its_terms_go_with_the_model(others, tmp_path):
    size = {"embed_dim": 64, "depth": 2, "num_heads": 1, "img_size": 32, "patch_size": 8}
    theirs = timm.create_model("vit_base_patch16_224", num_classes=0, **size).state_dict()
    decoder = {"mask_token": torch.zeros(1, 1, 32), "decoder_embed.weight": torch.ones(32, 64)}
    torch.save({"model": {**theirs, **decoder}}, tmp_path / "mae.pth")
    run = tmp_path / "run"
    few = {**trained.TWO_STEPS, "transfer.mode": "head_first", "transfer.head_share": 0.5}
    hilum.train(others, out=run, start=tmp_path / "mae.pth", device="cpu", threads=1, assignments=few)
    plan, model = plan_file.read_plan(run / "plan.yaml"), hilum.load(run, "cpu")
    assert (plan["network.name"], plan["network.size"]["settings"]["depth"]) == ("timm", 2)
    assert "as in the source of the weights, mae.pth" in plan.decision("network.size").because
    hows = {row["how"] for row in rows_of(run) if row["group"] == "encoder"}
    assert hows == {"copied", "channels"}
    page = readme.readme_text(model, "pictures", [], [], {}, "")
    assert "Training started from weights of mae. Their licence: CC-BY-NC-4.0" in page
    assert "arXiv:2111.06377" in page
