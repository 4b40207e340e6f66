"""Steps and predictions of one volume and of several in float32 on a processor, with oneDNN and as torch does them.

    python bench/single_volumes.py --threads 2
    ONEDNN_MAX_CPU_ISA=AVX2 ATEN_CPU_CAPABILITY=avx2 python bench/single_volumes.py --threads 2

torch 2.13 hands a convolution in float32 to oneDNN where it has two samples or more, or where channels times the first
two axes exceed 20480; networks here hand it those of one volume too. The network and its patch of 40 x 56 x 40 voxels
are those of the demo's plan on a processor. A step is there and back; the lowest of eight taken in turns.
"""

from __future__ import annotations

import argparse
import copy
import time
from collections.abc import Callable
from functools import partial

import torch
from torch import Tensor, nn

from isocenter.networks import factory, quick_convolutions
from isocenter.values import Dense

PATCH, REPEATS, ORDERS = (
    (40, 56, 40),
    8,
    {"plain": quick_convolutions.to_contiguous, "channels-last": quick_convolutions.to_channels_last},
)
SIZE = {"width": 16, "widest": 128, "strides": [[1, 1, 1], *[[2, 2, 2]] * 3], "deep_supervision": 0}


def step(module: nn.Module, images: Tensor) -> None:
    module.zero_grad()
    module(images)["mask"].square().mean().backward()


def prediction(module: nn.Module, images: Tensor) -> None:
    with torch.inference_mode():
        module(images)


def lowest(calls: dict[str, Callable[[], None]]) -> dict[str, float]:
    """{name: ms} of the fastest call of each, in turns, after two that warm up."""
    taken: dict[str, list[float]] = {name: [] for name in calls}
    for _ in range(2 + REPEATS):
        for name, call in calls.items():
            began = time.perf_counter()
            call()
            taken[name].append(time.perf_counter() - began)
    return {name: 1e3 * min(each[2:]) for name, each in taken.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=1)
    torch.set_num_threads(parser.parse_args().threads)
    torch.manual_seed(0)
    theirs = factory.build("unet", 1, 3, {"mask": Dense(3)}, SIZE)
    ways = {"torch": theirs, "ours": quick_convolutions.with_quick_single_volumes(copy.deepcopy(theirs))}
    print("| volumes | order | step: torch | ours | prediction: torch | ours |")
    print("|---" * 6 + "|")
    for count in (1, 2, 4):
        for order, laid in ORDERS.items():
            images = torch.randn(count, 1, *PATCH)
            images = (
                quick_convolutions.order_channels_last(images)
                if laid is quick_convolutions.to_channels_last
                else images
            )
            each = {}
            for what in (step, prediction):
                calls = {name: partial(what, laid(module), images) for name, module in ways.items()}
                found = lowest(calls)
                each |= {f"{what.__name__} {name}": f"{found[name]:.0f} ms" for name in ways}
            print(f"| {count} | {order} | {' | '.join(each.values())} |")


if __name__ == "__main__":
    main()
