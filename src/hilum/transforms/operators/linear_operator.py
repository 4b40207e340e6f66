"""A linear operator: NumPy or torch, batched, differentiable, with the exact transpose."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING, Any, TypeVar

import numpy as np

from hilum.errors import GeometryError
from hilum.lazy import torch
from hilum.values import Acquisition, Array

if TYPE_CHECKING:
    from torch import Tensor

    from hilum.values.plain_values import PlainValue

Values = TypeVar("Values", Array, "Tensor")


class LinearOperator(ABC):
    """What a scanner measures of an image.

    domain:     shape of an image; codomain: of its measurement. Axes before them are batches
    is_complex: whether images and measurements are complex; real ones are taken as complex then
    """

    def __init__(self, acquisition: Acquisition, codomain: tuple[int, ...], *, is_complex: bool) -> None:
        self.acquisition = acquisition
        self.is_complex = is_complex
        self.domain: tuple[int, ...] = acquisition.shape
        self.codomain = codomain

    @abstractmethod
    def measure(self, images: Tensor) -> Tensor:
        """(batch, *domain) to (batch, *codomain)."""

    @abstractmethod
    def transpose(self, measured: Tensor) -> Tensor:
        """(batch, *codomain) to (batch, *domain): the conjugate transpose of `measure`."""

    @abstractmethod
    def invert(self, measured: Tensor) -> Tensor:
        """(batch, *codomain) to (batch, *domain): the plain inverse, exact where everything was measured."""

    def forward(self, image: Values) -> Values:
        """(..., *domain) to (..., *codomain)."""
        return self._apply(self.measure, image, self.domain, self.codomain)

    def adjoint(self, measured: Values) -> Values:
        """(..., *codomain) to (..., *domain)."""
        return self._apply(self.transpose, measured, self.codomain, self.domain)

    def normal(self, image: Values) -> Values:
        """(..., *domain): the adjoint of what is measured of an image."""
        return self.adjoint(self.forward(image))

    def plain_inverse(self, measured: Values) -> Values:
        """(..., *codomain) to (..., *domain): filtered backprojection, or the Fourier transform with zeros in gaps."""
        return self._apply(self.invert, measured, self.codomain, self.domain)

    @property
    def record(self) -> Mapping[str, PlainValue]:
        """The acquisition, as JSON states it."""
        return self.acquisition.as_record()

    def _apply(
        self, change: Callable[[Tensor], Tensor], values: Values, given: tuple[int, ...], result: tuple[int, ...]
    ) -> Values:
        batch = tuple(values.shape[: len(values.shape) - len(given)])
        if tuple(values.shape[len(batch) :]) != given:
            remedy = f"Give an array whose last axes are {given}"
            raise GeometryError(f"has the shape {tuple(values.shape)}", self.acquisition.where, remedy)
        if isinstance(values, np.ndarray):
            with torch.no_grad():
                tensor = torch.as_tensor(np.ascontiguousarray(values, np.result_type(values, np.float32)))
                return self._apply(change, tensor, given, result).numpy()
        if self.is_complex and not values.is_complex():
            values = torch.complex(values, torch.zeros_like(values))
        if values.is_complex() and not self.is_complex:
            problem = "has complex numbers, but rays have real ones"
            raise GeometryError(problem, self.acquisition.where, "Give real ones")
        return change(values.reshape(-1, *given)).reshape(*batch, *result)


def apply_linear(values: Tensor, change: Callable[[Tensor], Tensor], transpose: Callable[[Tensor], Tensor]) -> Tensor:
    """`change` of values; its gradient is the transpose of what comes back, whatever `change` is made of."""

    class Linear(torch.autograd.Function):
        @staticmethod
        def forward(ctx: Any, given: Tensor) -> Tensor:
            return change(given)

        @staticmethod
        def backward(ctx: Any, gradient: Tensor) -> Tensor:
            return apply_linear(gradient, transpose, change)

    return Linear.apply(values) if values.requires_grad else change(values)
