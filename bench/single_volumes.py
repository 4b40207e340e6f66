"""What a step costs in float32 on this processor by the number of volumes in it: one takes torch as long as two.

    python bench/single_volumes.py --threads 2

torch 2.13 hands a convolution in float32 to oneDNN where it has two samples or more, or where channels times the first
two axes exceed 20480; others go a way of its own. The network is an encoder of the widths that the demo's plan has on a
processor, two convolutions each, on its patch of 40 x 56 x 40 voxels; the single convolution is one of the second
level. There and back, the lowest of five, in milliseconds.
"""

from __future__ import annotations

import argparse
import os
import time
from collections.abc import Callable

import torch
from machine import described
from torch import nn

from isocenter.networks import channels_last, ordered, plain

WIDTHS, PATCH, REPEATS = (16, 32, 64, 128), (40, 56, 40), 5


def network() -> nn.Module:
    """Two convolutions of each width; the volume is halved between widths."""
    layers = list[nn.Module]()
    for level, width in enumerate(WIDTHS):
        before = WIDTHS[level - 1] if level else 1
        for first, stride in ((before, 2 if level else 1), (width, 1)):
            layers += [nn.Conv3d(first, width, 3, stride, 1), nn.InstanceNorm3d(width, affine=True), nn.LeakyReLU()]
    return nn.Sequential(*layers)


def lowest(work: Callable[[], object]) -> float:
    """Milliseconds of the fastest call after two."""
    taken = []
    for _ in range(2 + REPEATS):
        began = time.perf_counter()
        work()
        taken.append(time.perf_counter() - began)
    return 1e3 * min(taken[2:])


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--threads", type=int, default=os.cpu_count() or 1)
    torch.set_num_threads(parser.parse_args().threads)
    print(f"Machine: {described()}, {torch.get_num_threads()} threads.\n")
    print("| volumes in a step | plain | channels-last | one convolution of 32 channels |\n" + "|---" * 4 + "|")
    module, single = network(), nn.Conv3d(32, 32, 3, padding=1)
    for count in (1, 2, 4):
        images, inner = torch.randn(count, 1, *PATCH), torch.randn(count, 32, *(n // 2 for n in PATCH))
        whole = lowest(lambda images=images: plain(module)(images).square().mean().backward())
        last = lowest(lambda images=images: channels_last(module)(ordered(images)).square().mean().backward())
        inside = lowest(lambda inner=inner: single(inner).square().mean().backward())
        print(f"| {count} | {whole:.0f} ms | {last:.0f} ms | {inside:.0f} ms |")


if __name__ == "__main__":
    main()
