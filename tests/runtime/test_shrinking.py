from __future__ import annotations

import logging
import sys

import numpy as np
import pytest
from numpy.testing import assert_array_equal

import forked
from hilum import errors
from hilum.errors import MemoryShortageError
from hilum.runtime import torch_networks
from hilum.runtime.torch_networks import SmallerBatches

WINDOWS = np.arange(24, dtype=np.float32).reshape(12, 1, 2)


class Small:
    """A network for which so many windows are the most that fit."""

    def __init__(self, most: int, error: Exception) -> None:
        self.most, self.error, self.seen = most, error, []

    def __call__(self, batch):
        self.seen.append(len(batch))
        if len(batch) > self.most:
            raise self.error
        return {"mask": 2 * batch, "class": batch.sum(axis=(1, 2))[:, None]}


@pytest.mark.parametrize("most", [1, 2, 5, 12])
def test_however_few_windows_fit_at_once_the_outputs_are_the_same(most):
    outputs = torch_networks.in_smaller_batches(Small(most, MemoryError()))(WINDOWS)
    assert_array_equal(outputs["mask"], 2 * WINDOWS)
    assert_array_equal(outputs["class"], WINDOWS.sum(axis=(1, 2))[:, None])


def test_what_did_not_fit_once_is_not_tried_again(caplog):
    network = Small(3, RuntimeError("CUDA out of memory. Tried to allocate 2.00 GiB"))
    small = torch_networks.in_smaller_batches(network)
    with caplog.at_level(logging.WARNING, logger="hilum"):
        small(WINDOWS)
        small(WINDOWS)
    assert network.seen == [12, 6, 3, 3, 3, 3, 3, 3, 3, 3]
    assert [record.message for record in caplog.records] == [
        "memory ran out with 12 windows at once: from now on 6",
        "memory ran out with 6 windows at once: from now on 3",
    ]


def test_a_window_that_does_not_fit_alone_is_an_error_with_its_size():
    with pytest.raises(MemoryShortageError, match=r"not even one window of \(1, 2\)"):
        torch_networks.in_smaller_batches(Small(0, MemoryError("bad allocation")))(WINDOWS)


def test_a_defect_of_the_network_is_not_taken_for_a_lack_of_memory():
    network = Small(0, RuntimeError("mat1 and mat2 shapes cannot be multiplied"))
    with pytest.raises(RuntimeError, match="mat1"):
        torch_networks.in_smaller_batches(network)(WINDOWS)
    assert network.seen == [12]


def test_a_network_is_made_to_shrink_once():
    small = torch_networks.in_smaller_batches(Small(1, MemoryError()))
    assert isinstance(small, SmallerBatches)
    assert torch_networks.in_smaller_batches(small) is small


# As much as the process has, and 400 MiB: a batch of sixteen windows does not fit, and one does.
LIMITED = """
import resource, sys
import numpy as np, psutil, torch
from hilum.runtime.torch_networks import TorchNetwork
from hilum.runtime import torch_networks
torch.set_num_threads(1)
class Wide(torch.nn.Module):
    def forward(self, images):
        return {"mask": images.repeat(1, 8, 1, 1, 1).mean(dim=1, keepdim=True)}
network = torch_networks.in_smaller_batches(TorchNetwork(Wide().eval()))
network(np.zeros((1, 1, 8, 8, 8), np.float32))
limit = psutil.Process().memory_info().vms + 400 * 2**20
resource.setrlimit(resource.RLIMIT_AS, (limit, limit))
batch = np.ones((16, 1, 128, 128, 64), np.float32)
print(network(batch)["mask"].mean(), network.most)
"""


@pytest.mark.skipif(sys.platform != "linux", reason="RLIMIT_AS is kept on Linux alone")
@pytest.mark.whole
def test_torch_under_a_limit_of_memory_goes_on_with_fewer_windows():
    done = forked.run("-c", LIMITED)
    assert done.returncode == 0, done.stderr
    mean, most = done.stdout.split()
    assert float(mean) == 1.0
    assert int(most) < 16


@pytest.mark.parametrize(
    ("error", "true"),
    [
        (MemoryError(), True),
        (OSError(12, "Cannot allocate memory"), True),
        (OSError(28, "No space left on device"), False),
        (RuntimeError("[enforce fail at alloc_cpu.cpp:117] DefaultCPUAllocator: can't allocate memory"), True),
        (Exception("[ONNXRuntimeError] : 6 : Failed to allocate memory for requested buffer of size 8"), True),
        (RuntimeError("CUDA error: CUBLAS_STATUS_ALLOC_FAILED when calling `cublasCreate(handle)`"), True),
        (RuntimeError("cuDNN error: CUDNN_STATUS_NOT_SUPPORTED"), False),
        (ValueError("shapes do not fit"), False),
    ],
)
def test_a_lack_of_memory_is_known_by_whoever_says_it(error, true):
    assert errors.is_out_of_memory(error) is true
