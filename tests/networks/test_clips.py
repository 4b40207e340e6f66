"""Networks for clips: frames that are not there have no influence, and the order of the others is told apart."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import onnxruntime
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from numpy.testing import assert_allclose
from torch import Tensor

from hilum.errors import PlanError
from hilum.networks import clips, factory
from hilum.values import Dense, Vector
from matrices import thinned

torch.set_num_threads(1)

SLOTS, CHANNELS = 8, 2
SHAPES = {1: (12,), 2: (7, 6), 3: (5, 4, 6)}
FRAME = {"blocks": [1, 1], "width": 4, "dropout": 0.0}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "convolutions": ("clip_resnet", {}),
    "convolutions and places": ("clip_resnet", {"where": True}),
    "GRU": ("clip_gru", {"hidden": 6}),
    "GRU one way in two layers": ("clip_gru", {"hidden": 6, "layers": 2, "bidirectional": False}),
    "LSTM": ("clip_lstm", {"hidden": 6, "layers": 2}),
    "LSTM behind convolutions": ("clip_lstm", {"hidden": 6, "within": 3}),
    "transformer": ("clip_transformer", {"hidden": 8, "heads": 2}),
}


def network(which: str, axes: int = 2, context: int = 0, frames: int = SLOTS, **size: Any) -> torch.nn.Module:
    torch.manual_seed(0)
    name, own = FAMILIES[which]
    wanted = {**FRAME, **own, "frames": frames, **size}
    return factory.build(name, CHANNELS * frames, axes, {"class": Vector(3)}, wanted, context)


def clip(frames: int, axes: int = 2, batch: int = 2, seed: int = 0) -> Tensor:
    """(batch, channels, frames, *spatial)"""
    return torch.randn(batch, CHANNELS, frames, *SHAPES[axes], generator=torch.Generator().manual_seed(seed))


def as_channels(frames: Tensor) -> Tensor:
    return frames.flatten(1, 2)


def with_gaps(frames: Tensor, slots: list[int], count: int = SLOTS) -> Tensor:
    """Frames in these slots of a longer clip, whose others are not there."""
    longer = torch.full((*frames.shape[:2], count, *frames.shape[3:]), torch.nan)
    longer[:, :, slots] = frames
    return longer


@pytest.mark.parametrize("which", FAMILIES)
@pytest.mark.parametrize("axes", thinned(1, SHAPES))
def test_frames_that_are_not_there_do_not_change_the_answer(which, axes):
    module = network(which, axes).eval()
    for count in (1, 3, SLOTS):
        short = clip(count, axes)
        padded = with_gaps(short, list(range(count)))
        with torch.no_grad():
            assert_allclose(module(as_channels(padded))["class"], module(as_channels(short))["class"], atol=1e-6)


@pytest.mark.parametrize("which", FAMILIES)
@settings(max_examples=4)
@given(slots=st.lists(st.sets(st.integers(0, SLOTS - 1), min_size=1), min_size=2, max_size=2))
def test_a_clip_has_the_same_answer_alone_as_among_clips_of_other_lengths(which, slots):
    module = network(which).eval()
    whole = [with_gaps(clip(len(one), batch=1, seed=n), sorted(one)) for n, one in enumerate(slots)]
    with torch.no_grad():
        together = module(as_channels(torch.cat(whole)))["class"]
        alone = torch.cat([module(as_channels(one))["class"] for one in whole])
    assert together.isfinite().all()
    assert_allclose(together, alone, atol=1e-6)


@pytest.mark.parametrize("which", ["GRU", "GRU one way in two layers", "LSTM"])
@settings(max_examples=4)
@given(slots=st.sets(st.integers(0, SLOTS - 1), min_size=1))
def test_a_lost_frame_leaves_the_state_of_a_recurrent_network_as_it_was(which, slots):
    module, short = network(which).eval(), clip(len(slots))
    with torch.no_grad():
        gaps = module(as_channels(with_gaps(short, sorted(slots))))["class"]
        assert_allclose(gaps, module(as_channels(short))["class"], atol=1e-6)


@pytest.mark.parametrize("which", FAMILIES)
def test_frames_that_are_not_there_change_no_gradient_and_no_mean_that_normalisation_keeps(which):
    short = clip(5)
    after = []
    for given_frames in (short, with_gaps(short, list(range(5)))):
        module = network(which).train()
        module(as_channels(given_frames))["class"].square().sum().backward()
        kept = {name: one for name, one in module.named_buffers() if one.is_floating_point()}
        after.append((kept, {name: one.grad for name, one in module.named_parameters()}))
    assert after[0][0]
    for plain, padded in zip(*after, strict=True):
        for name, one in plain.items():
            assert_allclose(padded[name], one, rtol=1e-4, atol=1e-5, err_msg=name)


@pytest.mark.filterwarnings("ignore::torch.jit.TracerWarning")
@pytest.mark.parametrize("which", FAMILIES)
@pytest.mark.whole
def test_onnxruntime_gives_clips_of_any_length_the_answer_that_torch_gives_them_alone(which, tmp_path):
    module = network(which)
    module(as_channels(clip(SLOTS)))  # running means that are not those of a fresh network
    session = exported(module.eval(), tmp_path / "clips.onnx")
    lengths = (2, 5, SLOTS)
    each = [clip(length, batch=1, seed=length) for length in lengths]
    padded = torch.cat([with_gaps(one, list(range(length))) for one, length in zip(each, lengths, strict=True)])
    [found] = session.run(None, {"images": as_channels(padded).numpy()})
    with torch.no_grad():
        expected = torch.cat([module(as_channels(one))["class"] for one in each])
    assert_allclose(found, expected, atol=1e-5)


class Bare(torch.nn.Module):
    """As export takes it: a tensor in, a tensor out."""

    def __init__(self, module: torch.nn.Module) -> None:
        super().__init__()
        self.module = module

    def forward(self, images: Tensor) -> Tensor:
        return self.module(images)["class"]


def exported(module: torch.nn.Module, path: Path) -> onnxruntime.InferenceSession:
    torch.onnx.export(
        Bare(module).eval(),
        (as_channels(clip(SLOTS)),),
        path,
        dynamo=False,
        input_names=["images"],
        dynamic_axes={"images": {0: "batch"}},
    )
    return onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])


@pytest.mark.parametrize("cell", ["gru", "lstm"])
@pytest.mark.parametrize("bidirectional", [False, True])
def test_a_recurrent_layer_is_that_of_torch_also_for_clips_of_unequal_length(cell, bidirectional):
    torch.manual_seed(0)
    theirs = {"gru": torch.nn.GRU, "lstm": torch.nn.LSTM}[cell](5, 4, batch_first=True, bidirectional=bidirectional)
    ours = clips.TimeDirections(cell, 5, 4, bidirectional)
    for way, end in zip(ours.ways, ("", "_reverse"), strict=False):
        way.given.weight, way.given.bias = (getattr(theirs, f"{part}_ih_l0{end}") for part in ("weight", "bias"))
        way.state.weight, way.state.bias = (getattr(theirs, f"{part}_hh_l0{end}") for part in ("weight", "bias"))
    series, lengths = torch.randn(3, 6, 5), torch.tensor([6, 4, 1])
    packed = torch.nn.utils.rnn.pack_padded_sequence(series, lengths, batch_first=True)
    expected, _ = torch.nn.utils.rnn.pad_packed_sequence(theirs(packed)[0], batch_first=True)
    there = torch.arange(6) < lengths[:, None]
    with torch.no_grad():
        assert_allclose(ours(series, there)[there], expected[there], atol=1e-6)


def moving(count: int, axes: int, seed: int, side: int = 12, frames: int = 5) -> tuple[Tensor, Tensor]:
    """(count, frames, *spatial) of a ball that moves forth (1) or back (0), which only the order of frames says."""
    rng = np.random.default_rng(seed)
    forth = np.arange(count) % 2
    voxels = rng.normal(0, 0.1, (count, frames, *[side] * axes))
    for n in range(count):
        centre = rng.uniform(0.35, 0.65, axes) * side
        for frame in range(frames):
            there = centre + np.eye(axes)[0] * (frame - (frames - 1) / 2) * (1 if forth[n] else -1)
            away = np.indices([side] * axes) - there.reshape(-1, *[1] * axes)
            voxels[n, frame] += np.exp(-(away**2).sum(axis=0) / 8)
    return torch.tensor(voxels, dtype=torch.float32), torch.tensor(forth)


def accuracy(name: str, axes: int, steps: int, **size: Any) -> float:
    """Of clips that it was not taught with, after so many steps of 16."""
    torch.manual_seed(0)
    images, forth = moving(64, axes, seed=1, side=12 if axes == 2 else 8)
    others, others_forth = moving(48, axes, seed=2, side=12 if axes == 2 else 8)
    module = factory.build(name, images.shape[1], axes, {"class": Vector(2)}, {**FRAME, "width": 8, **size})
    optimiser = torch.optim.AdamW(module.parameters(), lr=4e-3)
    for _ in range(steps):
        some = torch.randperm(len(images))[:16]
        optimiser.zero_grad()
        torch.nn.functional.cross_entropy(module(images[some])["class"], forth[some]).backward()
        optimiser.step()
    with torch.no_grad():
        found = module.eval()(others)["class"].argmax(dim=1)
    return float((found == others_forth).float().mean())


MOVING = {
    "clip_resnet": {},
    "clip_gru": {"hidden": 16},
    "clip_lstm": {"hidden": 16},
    "clip_transformer": {"hidden": 16},
}


@pytest.mark.parametrize(
    "name", ["clip_gru", *(pytest.param(one, marks=pytest.mark.whole) for one in MOVING if one != "clip_gru")]
)
def test_which_way_something_moves_is_learnt(name):
    assert accuracy(name, 2, 50, frames=5, **MOVING[name]) > 0.9


@pytest.mark.whole
def test_which_way_something_moves_in_volumes_is_learnt_by_convolutions_over_space_and_time():
    assert accuracy("clip_resnet", 3, 40, frames=5) > 0.9


@pytest.mark.whole
def test_frames_as_plain_channels_also_tell_which_way_something_moves():
    assert accuracy("resnet", 2, 60) > 0.9


@pytest.mark.parametrize("axes", thinned(1, SHAPES))
def test_what_looks_at_frames_alone_says_the_same_of_a_clip_and_of_it_backwards_and_the_families_do_not(axes):
    frames = clip(SLOTS, axes)
    for which, size, same in (("convolutions and places", {"span": 1}, True), *((one, {}, False) for one in FAMILIES)):
        module = network(which, axes, **size).eval()
        with torch.no_grad():
            forth, back = (module(as_channels(one))["class"] for one in (frames, frames.flip(2)))
        assert torch.allclose(forth, back, atol=1e-6) == same, which


@pytest.mark.parametrize("which", FAMILIES)
def test_what_is_told_beside_a_clip_has_a_say_in_its_answer(which):
    module, frames = network(which, context=2).eval(), as_channels(clip(SLOTS))
    with torch.no_grad():
        young, old = (module(frames, torch.full((2, 2), value))["class"] for value in (-1.0, 1.0))
    assert not torch.allclose(young, old, atol=1e-3)


def test_more_frames_than_were_taught_have_their_places_in_time():
    module = network("transformer").eval()
    assert module(as_channels(clip(3 * SLOTS)))["class"].isfinite().all()
    far, near = clips.sine_positions(30, 8), clips.sine_positions(10, 8)
    assert torch.equal(far[:, :10], near)
    assert len(np.unique(far[0].numpy().round(4), axis=0)) == 30


def test_where_a_feature_lies_is_its_centroid():
    maps = torch.zeros(1, 1, 5, 9)
    maps[0, 0, 1, 4], maps[0, 0, 3, 8] = 3.0, 1.0
    [[mean, row, column]] = (maps.flatten(2) @ clips.centroid_weights((5, 9)))[0].tolist()
    assert mean == pytest.approx(4 / 45)
    assert (row / mean, column / mean) == pytest.approx(((-0.5 * 3 + 0.5) / 4, (0 * 3 + 1) / 4))


@pytest.mark.parametrize(
    ("name", "channels", "size", "says"),
    [
        ("clip_gru", 7, {"frames": 2}, "7 channels are not those of 2 frames"),
        ("clip_resnet", 8, {"frames": 0}, "0 frames"),
        ("clip_resnet", 8, {"frames": 4, "span": 2}, "odd"),
        ("clip_lstm", 8, {"frames": 4, "within": 2}, "odd"),
        ("clip_gru", 8, {"frames": 4, "layers": 0}, "at least one"),
        ("clip_lstm", 8, {"frames": 4, "hidden": 0}, "at least one"),
        ("clip_transformer", 8, {"frames": 4, "hidden": 30, "heads": 4}, "even width"),
        ("clip_transformer", 8, {"frames": 4, "span": 3}, "span"),
    ],
)
def test_a_network_for_clips_that_cannot_be_is_refused(name, channels, size, says):
    with pytest.raises(PlanError, match=says):
        factory.build(name, channels, 2, {"class": Vector(2)}, size)


@pytest.mark.parametrize("name", MOVING)
def test_a_network_for_clips_gives_no_mask(name):
    with pytest.raises(PlanError, match="no output for every voxel"):
        factory.build(name, 4, 2, {"mask": Dense(2)}, {"frames": 2})
