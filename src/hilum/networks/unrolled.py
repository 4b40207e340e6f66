"""Unrolled reconstruction of Cartesian MR: steps towards the measurement, each followed by a small U-Net.

Hammernik et al., Magn Reson Med 2018, arXiv:1704.00447; Aggarwal et al., IEEE Trans Med Imaging 2019, arXiv:1712.02862
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import cast

import torch
from torch import Tensor, nn

from hilum.networks.network_family import Family, Sized, Strides

PAPER = "arXiv:1712.02862"
# Channels before those of coils: plain inverse, adjoint (real, imaginary), mask.
FIRST_COIL = 4
# Least magnitude of a pixel, whose phase has no gradient at 0.
TINY = 1e-6


class SmallUNet(nn.Module):
    """(batch, inside, rows, columns) to 2 channels: two halvings, no normalisation, as levels of images matter."""

    def __init__(self, inside: int, width: int) -> None:
        super().__init__()
        self.first = _two_convolutions(inside, width)
        self.second = _two_convolutions(width, 2 * width)
        self.third = _two_convolutions(2 * width, 4 * width)
        self.second_up = _two_convolutions(6 * width, 2 * width)
        self.first_up = _two_convolutions(3 * width, width)
        self.last = nn.Conv2d(width, 2, 1)

    def forward(self, images: Tensor) -> Tensor:
        """Return (batch, 2, rows, columns)."""
        first = self.first(images)
        second = self.second(nn.functional.avg_pool2d(first, 2))
        third = self.third(nn.functional.avg_pool2d(second, 2))
        second = self.second_up(torch.cat([second, _twice(third)], dim=1))
        corrections: Tensor = self.last(self.first_up(torch.cat([first, _twice(second)], dim=1)))
        return corrections


class Unrolled(nn.Module):
    """(batch, channels, rows, columns) of a measurement to {head: what is to be added to its plain inverse}.

    channels: plain inverse, adjoint (real, imaginary), mask, and of several coils their sensitivities (real,
              imaginary); of others nothing says how they were measured, and the steps are those of the U-Nets alone
    dense:    heads by name with their number of channels, of which the first is the image
    steps:    towards the measurement; width: maps of the first stage of each U-Net
    """

    def __init__(
        self, channels: int, spatial_dims: int, dense: Mapping[str, int], steps: int = 5, width: int = 16
    ) -> None:
        super().__init__()
        if spatial_dims != 2:
            raise ValueError(f"{spatial_dims} axes: slices are reconstructed one by one")
        self.is_measured = channels >= FIRST_COIL and channels % 2 == 0
        self.parts = nn.ModuleList(SmallUNet(2 + (1 if self.is_measured else channels), width) for _ in range(steps))
        self.rates = nn.Parameter(torch.ones(steps)) if self.is_measured else None
        self.dense = nn.ModuleDict(
            {name: nn.Sequential(_two_convolutions(3, width), nn.Conv2d(width, n, 1)) for name, n in dense.items()}
        )

    def forward(self, images: Tensor, context: Tensor | None = None) -> dict[str, Tensor]:
        """Return outputs by head; transforms are computed in single precision whatever the rest is."""
        plain = images[:, :1].float()
        # Parts stay real numbers but within a transform: half the bits have no complex ones.
        image = images[:, 1:3].float() if self.is_measured else torch.cat([plain, torch.zeros_like(plain)], dim=1)
        adjoint = image
        seen = plain if self.is_measured else images.float()
        for number, part in enumerate(self.parts):
            if self.rates is not None:
                image = image - self.rates[number] * (_normal(image, images.float()) - adjoint)
            image = image + part(torch.cat([image, seen], dim=1).to(images.dtype)).float()
        found = (image.square().sum(dim=1, keepdim=True) + TINY**2).sqrt()
        last = torch.cat([found, plain, found - plain], dim=1).to(images.dtype)
        outputs = {}
        for name, layer in self.dense.items():
            further = layer(last).float()
            outputs[name] = torch.cat([further[:, :1] + found - plain, further[:, 1:]], dim=1)
        return outputs


def _normal(image: Tensor, channels: Tensor) -> Tensor:
    """What is measured of (batch, 2, rows, columns), taken back to the image."""
    mask = channels[:, 3:4]
    maps = channels[:, FIRST_COIL:]
    values = torch.complex(image[:, :1], image[:, 1:])
    if not maps.shape[1]:
        back = _sample(values, mask)
    else:
        coils = torch.complex(maps[:, ::2], maps[:, 1::2])
        back = (_sample(values * coils, mask) * coils.conj()).sum(dim=1, keepdim=True)
    return torch.cat([back.real, back.imag], dim=1)


def _sample(images: Tensor, mask: Tensor) -> Tensor:
    """Images without what is not sampled of their centred k-space: as `Cartesian.normal`, in a file that travels alone.

    A shift of an image to its corner is a factor of each of its frequencies, and cancels.
    """
    corner = torch.fft.ifftshift(mask, dim=(-2, -1))
    return cast("Tensor", torch.fft.ifft2(torch.fft.fft2(images) * corner))


def _two_convolutions(inside: int, outside: int) -> nn.Sequential:
    layers = [nn.Conv2d(inside, outside, 3, padding=1), nn.Conv2d(outside, outside, 3, padding=1)]
    return nn.Sequential(layers[0], nn.LeakyReLU(0.1), layers[1], nn.LeakyReLU(0.1))


def _twice(maps: Tensor) -> Tensor:
    return nn.functional.interpolate(maps, scale_factor=2.0, mode="bilinear", align_corners=False)


def _size_for(patch: Sequence[int], strides: Strides, device: str) -> Sized:
    on_cpu = device == "cpu"
    size = {"steps": 5 if on_cpu else 8, "width": 16 if on_cpu else 32}
    because = "what a processor learns in minutes" if on_cpu else "more steps and maps on a GPU"
    return size, f"{because} of {list(patch)} pixels", PAPER


UNROLLED = Family(
    Unrolled,
    _size_for,
    PAPER,
    answers=frozenset({"dense"}),
    axes=(2,),
    otherwise="slices are reconstructed one by one",
    blocks=("SmallUNet",),
    without_onnx="transforms of complex numbers are not exported here",
)
