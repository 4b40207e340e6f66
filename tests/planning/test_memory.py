from __future__ import annotations

import subprocess
import sys
from dataclasses import replace

import pytest

from fingerprints import LAPTOP
from hilum.errors import PlanError, ResourceError
from hilum.planning import training_memory
from hilum.planning.training_memory import BYTES_OF_A_CASE, PROGRAM
from hilum.tasks import task_catalogue

UNET = {"width": 16, "widest": 64, "strides": [[1, 1, 1], [2, 2, 2], [2, 2, 2]]}
LABELS = [{"value": 1, "name": "lesion"}]
TASK = task_catalogue.build_task({"name": "segmentation", "labels": LABELS, "loss": "ce", "tolerance": 2.0})
NETWORK = {"name": "unet", "channels": 1, "spatial_dims": 3, "size": UNET}
# One training step in a process of its own, which says how many bytes it held at the most.
MEASURED = """
import torch
import hilum.verbs.train
from hilum.runtime import hardware, torch_networks
from hilum.tasks import task_catalogue
labels = [{"value": 1, "name": "lesion"}]
task = task_catalogue.build_task({"name": "segmentation", "labels": labels, "loss": "ce", "tolerance": 2.0})
module = torch_networks.build_module(task, NETWORK).train()
optimiser = torch.optim.AdamW(module.parameters())
for _ in range(2):
    outputs = module(torch.randn(BATCH, 1, *PATCH))
    loss = task.loss(outputs, torch.zeros(BATCH, *PATCH, dtype=torch.uint8))
    optimiser.zero_grad()
    loss.backward()
    optimiser.step()
print(int(hardware.peak_memory()))
"""


def predicted(batch: int = 4, patch: tuple[int, ...] = (32, 32, 32), **given):
    return training_memory.predict_peak(TASK, NETWORK, patch, batch, LAPTOP, half=False, **given)


@pytest.mark.skipif(sys.platform != "linux", reason="other systems count memory in other units")
@pytest.mark.whole
def test_what_a_training_takes_is_within_a_quarter_of_what_was_predicted():
    batch, patch = 4, (40, 40, 40)
    script = MEASURED.replace("NETWORK", repr(NETWORK)).replace("BATCH", str(batch)).replace("PATCH", repr(patch))
    done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True)
    ratio = float(done.stdout.split()[-1]) / 2**30 / predicted(batch, patch).on_device(LAPTOP)
    assert 0.75 < ratio < 1.25


def test_activations_grow_with_the_batch_and_with_the_patch_and_weights_do_not():
    one, two, larger = predicted(1), predicted(2), predicted(1, (64, 32, 32))
    assert two.kept == pytest.approx(2 * one.kept)
    assert larger.kept == pytest.approx(2 * one.kept, rel=0.01)
    assert two.weights == one.weights == larger.weights


def test_each_weight_is_held_with_its_gradient_its_average_and_what_the_optimiser_keeps():
    convolutions = 3 * 3 * 3
    adam, sgd = predicted(), predicted(optimiser="sgd")
    assert adam.weights / sgd.weights == pytest.approx(6 / 5)
    assert adam.weights * 2**30 > 6 * 4 * convolutions * 16 * 16


def test_bfloat16_takes_less():
    half = training_memory.predict_peak(TASK, NETWORK, (32, 32, 32), 4, LAPTOP, half=True)
    assert 0.4 < half.kept / predicted().kept < 0.8


def test_prepared_cases_are_kept_in_memory_only_while_they_leave_room():
    assert predicted(cases=2.0**30).cases == 1
    assert predicted(cases=10 * 2.0**30).cases == 0


def test_many_small_cases_take_memory_by_their_number():
    assert predicted(count=2**20).cases == pytest.approx(BYTES_OF_A_CASE / 2**10)


def test_a_gpu_holds_weights_and_activations_and_the_machine_the_rest():
    gpu = replace(LAPTOP, device="cuda:0", memory=2.0, device_memory=1.0)
    found = training_memory.predict_peak(TASK, NETWORK, (32, 32, 32), 2, gpu, half=False, cases=0.1 * 2**30)
    assert found.on_device(gpu) == found.weights + found.kept
    assert found.fits(gpu)
    assert not found.fits(replace(gpu, memory=0.5 * PROGRAM / 2**30))


def test_apples_gpus_hold_everything_in_the_memory_of_the_machine():
    gpu = replace(LAPTOP, device="mps", memory=2.0, device_memory=2.0)
    found = training_memory.predict_peak(TASK, NETWORK, (32, 32, 32), 2, gpu, half=False, cases=0.1 * 2**30)
    assert found.on_device(gpu) == found.weights + found.kept + found.program + found.cases
    least = found.on_device(gpu) / 0.8
    assert found.fits(replace(gpu, memory=1.01 * least, device_memory=1.01 * least))
    assert not found.fits(replace(gpu, memory=0.99 * least, device_memory=0.99 * least))


def test_a_patch_that_the_strides_do_not_divide_is_refused():
    with pytest.raises(PlanError, match=r"training\.patch"):
        predicted(2, (31, 33, 35))


def test_what_does_not_fit_is_refused_with_its_remedy():
    training_memory.refuse_too_large(predicted(), LAPTOP)
    with pytest.raises(ResourceError, match=r"training would take .* GiB.*smaller training\.patch"):
        training_memory.refuse_too_large(predicted(), replace(LAPTOP, memory=0.5, device_memory=0.5))
