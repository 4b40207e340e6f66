from __future__ import annotations

import pytest
import torch

from hilum.training.length import step_probe
from hilum.training.training_state import Spans, Work


def test_operations_of_a_step_are_those_counted_by_hand():
    """A convolution of 2 to 4 channels, 3 x 3 over 8 x 8: 2 operations a weight and place, there and twice back."""
    module = torch.nn.Conv2d(2, 4, 3, padding=1, bias=False)
    images = torch.randn(5, 2, 8, 8, requires_grad=True)
    forward = 2 * 5 * 8 * 8 * 4 * 2 * 9
    operations, shapes = step_probe.count_work(module, lambda: module(images).sum().backward())
    assert operations == 3 * forward
    assert [(shape.images, shape.weight, shape.operations) for shape in shapes] == [
        ((5, 2, 8, 8), (4, 2, 3, 3), float(forward))
    ]
    assert shapes[0].words == "2 to 4 channels, 3 x 3 over 8 x 8"


def test_the_peak_is_no_less_than_a_whole_pass_reaches():
    torch.set_num_threads(1)
    module = torch.nn.Conv2d(16, 16, 3, padding=1, bias=False)
    images = torch.randn(4, 16, 32, 32)
    work, shapes = step_probe.count_work(module, lambda: module(images))
    peak = step_probe.measure_peak(module, shapes, half=False, device="cpu")
    assert peak is not None
    assert "convolution of 16 to 16 channels" in peak.what or "matrix product" in peak.what
    assert 1e6 < peak.operations < 1e16
    assert work == shapes[0].operations


def test_a_network_without_convolutions_has_no_such_peak():
    assert step_probe.measure_peak(torch.nn.Linear(2, 2), [], half=False, device="cpu") is None


def test_the_share_is_that_of_the_peak_in_the_time_of_a_step():
    work = Work(operations=30e9, peak=200e9, what="a convolution", step=0.5)
    assert work.reached_share == 0.3
    assert str(work) == "30 % of 200 GFLOP/s, which a convolution reaches"
    assert Work(30e9, 200e9, "a convolution").reached_share is None


@pytest.mark.parametrize("device", ["cuda:1", "mps"])
def test_a_clock_waits_until_a_gpu_has_done_what_it_was_given(device, monkeypatch):
    waited = []
    monkeypatch.setattr(torch.cuda, "synchronize", waited.append)
    monkeypatch.setattr(torch.mps, "synchronize", lambda: waited.append("mps"))
    step_probe.wait_for_device("cpu")
    step_probe.wait_for_device(device)
    assert waited == [device]


def test_waiting_is_a_share_of_steps_alone():
    now = [0.0]
    spans = Spans(lambda: now[0])
    for _ in range(4):
        with spans.waiting():
            now[0] += 1
        with spans.working():
            now[0] += 3
        with spans.looking():
            now[0] += 100
    assert spans.share_waiting == 0.25
    assert spans.timed_work(Work(8.0, 4.0, "")) == Work(8.0, 4.0, "", 4.0)
    assert spans.timed_work(None) is None
    assert (spans.step, spans.looked) == (4.0, 100.0)
