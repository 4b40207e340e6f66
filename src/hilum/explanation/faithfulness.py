"""Tests of a map: does it follow the weights, does what it marks matter, and the verdict on its method over cases."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import cast

import numpy as np
import torch
from captum.metrics import infidelity, sensitivity_max
from torch import Tensor
from torch.nn import Module

from hilum import errors
from hilum.evaluation import intervals
from hilum.explanation import explanation_methods
from hilum.explanation.case_on_grid import ExplainedWindow
from hilum.explanation.explanation_methods import Method
from hilum.lazy import ndimage, stats
from hilum.runtime import torch_networks
from hilum.values import Estimate
from hilum.values.explanation_records import MethodRecord, TestedFigure

# Groups of layers that are randomised, one after the other from the last: Adebayo et al., arXiv:1810.03292.
STAGES = 4
# Shares of the voxels that are taken away or shown, arXiv:1806.07421 section 4.
STEPS = tuple(np.linspace(0, 1, 13)[1:-1].tolist())
# Of the range of intensities, for stability; voxels that are compared; random maps beside the true one.
NOISE, COMPARED, RANDOM_MAPS = 0.01, 20_000, 2
# Perturbations of infidelity and sensitivity, arXiv:1901.09392, and their size as a share of the range.
PERTURBED, INFIDELITY_NOISE, MOVED, RADIUS = 8, 0.1, 2, 0.02
# A score that a blur moves by less of itself says nothing of what is hidden.
LEAST_CHANGE = 1e-6


@dataclass(frozen=True, eq=False)
class FaithfulnessWindow:
    """A window through all members of a model: its map and its score are their weighted means."""

    subjects: Sequence[ExplainedWindow]
    shares: Sequence[float]

    @property
    def image(self) -> Tensor:
        """(1, channels, *window)"""
        return self.subjects[0].image

    def score(self, images: Tensor) -> Tensor:
        """(batch,) without gradients."""
        each = [share * one.scores(images) for one, share in zip(self.subjects, self.shares, strict=True)]
        return torch.stack(each).sum(dim=0)

    def map_image(self, method: Method, image: Tensor | None = None, seconds: float | None = None) -> Tensor:
        """(channels, *window) of the window, or of another image in its place."""
        own = [one if image is None else replace(one, image=image) for one in self.subjects]
        each = [share * method(one, seconds)[0] for one, share in zip(own, self.shares, strict=True)]
        return torch.stack(each).sum(dim=0)

    def randomised(self, stage: int, seed: int) -> FaithfulnessWindow:
        """The same window through networks whose last `stage` of `STAGES` groups of layers are randomised."""
        return replace(self, subjects=[_randomised(one, stage, seed + n) for n, one in enumerate(self.subjects)])


def assess_method(
    window: FaithfulnessWindow, method: Method, seed: int, seconds: float | None = None
) -> dict[str, float]:
    """The findings of the tests of a method on a window; NaN where one cannot be.

    randomisation: mean absolute rank correlation with maps of networks whose weights are randomised, group by group:
                   a map that only changes its sign shows the same places. Adebayo et al., NeurIPS 2018,
                   arXiv:1810.03292, report it with the sign and without
    deletion:      mean score while what the map marks most is blurred away; lower is better
    insertion:     mean score while what it marks most is shown on a blurred image; higher is better
    over_random, over_edges: by how much both are better than of random maps, and of an edge filter
    stability:     rank correlation with the map of the image with noise
    infidelity, sensitivity: arXiv:1901.09392; lower is better
    Scores are shares of what the blur changes.
    """
    attributed = window.map_image(method, seconds=seconds)
    flat, random = attributed.sum(dim=0), np.random.default_rng(seed)
    deletion, insertion = _curves(window, flat)
    measures = {"deletion": deletion, "insertion": insertion}
    others = [_random_map(window, random) for _ in range(RANDOM_MAPS)]
    for name, maps in (("random", others), ("edges", [_edges(window)])):
        curves = np.mean([_curves(window, one) for one in maps], axis=0)
        measures[f"deletion_over_{name}"] = float(curves[0] - deletion)
        measures[f"insertion_over_{name}"] = float(insertion - curves[1])
    noisy = window.image + _noise(window, NOISE, seed)
    measures["stability"] = rank_correlation(flat, window.map_image(method, noisy, seconds).sum(dim=0))
    measures["randomisation"] = float("nan")
    if all(one.module is not None for one in window.subjects):
        again = [window.randomised(stage, seed).map_image(method, seconds=seconds) for stage in range(1, STAGES + 1)]
        measures["randomisation"] = float(np.mean([abs(rank_correlation(flat, one.sum(dim=0))) for one in again]))
    return {**measures, **_by_captum(window, method, attributed, seed, seconds)}


def rank_correlation(first: Tensor, second: Tensor) -> float:
    """Spearman's rank correlation of two maps; 0 where one of them is constant."""
    ours, other = (part.detach().cpu().double().numpy().ravel() for part in (first, second))
    step = max(1, len(ours) // COMPARED)
    ours, other = np.nan_to_num(ours[::step]), np.nan_to_num(other[::step])
    if np.ptp(ours) == 0 or np.ptp(other) == 0:
        return 0.0
    return float(stats.spearmanr(ours, other).statistic)


def _randomised(subject: ExplainedWindow, stage: int, seed: int) -> ExplainedWindow:
    assert subject.module is not None  # noqa: S101 - asked before
    module = torch_networks.frozen_twin(subject.module, shared=False)
    layers = [one for one in module.modules() if any(True for _ in one.parameters(recurse=False))]
    generator = torch.Generator().manual_seed(seed)
    for layer in layers[len(layers) - math.ceil(len(layers) * stage / STAGES) :]:
        _randomise(layer, generator)
    return replace(subject, module=module, run=lambda images, context: module(*_without_none(images, context)))


def _without_none(*tensors: Tensor | None) -> list[Tensor]:
    return [one for one in tensors if one is not None]


def _randomise(layer: Module, generator: torch.Generator) -> None:
    """Weights of the same size, at random; of single numbers a map, as biases are, the order."""
    for tensor in layer.parameters(recurse=False):
        if tensor.ndim > 1:
            noise = torch.randn(tensor.shape, generator=generator).to(tensor)
            tensor.data = noise * tensor.data.float().square().mean().sqrt().to(tensor)
        else:
            tensor.data = tensor.data[torch.randperm(len(tensor), generator=generator).to(tensor.device)]


def _curves(window: FaithfulnessWindow, flat: Tensor) -> tuple[float, float]:
    """Mean scores of deletion and insertion in the order of a map, (*window), as shares of what the blur changes."""
    image, base = window.image, explanation_methods.blur_maps(window.image)
    ends = window.score(torch.cat([image, base])).cpu().double()
    change = float(abs(ends[0] - ends[1]))
    if not change > LEAST_CHANGE * float(abs(ends[0])):
        return float("nan"), float("nan")
    ranks = torch.nan_to_num(flat).flatten().argsort(descending=True).argsort().reshape(flat.shape)
    first = torch.stack([ranks < share * ranks.numel() for share in STEPS])[:, None].to(image.dtype)
    both = (first * base + (1 - first) * image, first * image + (1 - first) * base)
    deletion, insertion = ((float(window.score(one).cpu().double().mean()) - float(ends[1])) / change for one in both)
    return deletion, insertion


def _random_map(window: FaithfulnessWindow, random: np.random.Generator) -> Tensor:
    """(*window) smooth noise, as coarse as maps of deep layers are."""
    spatial = window.subjects[0].spatial
    coarse = torch.from_numpy(random.random((1, 1, *[min(8, size) for size in spatial]), dtype=np.float32))
    return explanation_methods.stretch_map(coarse, spatial)[0, 0].to(window.image.device)


def _edges(window: FaithfulnessWindow) -> Tensor:
    """(*window) the size of the image's gradient: what a filter shows that knows no network."""
    picture = np.nan_to_num(window.image[0].mean(dim=0).cpu().numpy())
    return torch.from_numpy(ndimage.gaussian_gradient_magnitude(picture, 1.0)).to(window.image.device)


def _noise(window: FaithfulnessWindow, share: float, seed: int) -> Tensor:
    image = torch.nan_to_num(window.image)
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(image.shape, generator=generator).to(image) * float(image.max() - image.min()) * share


def _by_captum(
    window: FaithfulnessWindow, method: Method, tensor: Tensor, seed: int, seconds: float | None
) -> dict[str, float]:
    """Infidelity and sensitivity, as captum defines them: of images with noise."""
    image = torch.nan_to_num(window.image)
    spread = float(image.max() - image.min())
    generator = torch.Generator().manual_seed(seed)

    def perturbed(images: Tensor) -> tuple[Tensor, Tensor]:
        noise = torch.randn(images.shape, generator=generator).to(images) * INFIDELITY_NOISE * spread
        return noise, images - noise

    def explained(images: tuple[Tensor, ...]) -> tuple[Tensor]:
        """captum takes a map that is alone and in no tuple for several, one for each image."""
        return (torch.stack([window.map_image(method, one[None], seconds) for one in images[0]]),)

    attributed = tensor[None].expand_as(image) / (image.shape[1] // len(tensor))
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        faults = infidelity(window.score, perturbed, image, attributed, n_perturb_samples=PERTURBED, normalize=True)
        moved = sensitivity_max(explained, image, perturb_radius=RADIUS * spread, n_perturb_samples=MOVED)
    return {"infidelity": float(faults[0]), "sensitivity": float(moved[0])}


# Of the tests below. It rises with every change of what they measure or demand, so that verdicts kept before are made
# anew: since 2 the correlation with maps of randomised weights is absolute, since 3 occlusion is even at borders.
TESTS_VERSION = 3
# Cases from which a method is judged, and of which it is judged if not said otherwise.
FEWEST: int = 5
TESTED: int = 20
# Absolute rank correlation with maps of randomised weights that a method may have, and one with maps of noisy
# images that it needs.
MOST_ALIKE, LEAST_STABLE = 0.5, 0.5
# Beside which maps both curves have to be better.
OTHERS = {"random": "random maps", "edges": "an edge filter"}
CURVES = ("deletion", "insertion")


@dataclass(frozen=True, eq=False)
class MethodVerdict:
    """The verdict of tests of a method on a model.

    passed:   whether all were passed; None where one of them could not be made
    because:  the reason in words
    measures: {test: mean over cases, with its interval}
    """

    passed: bool | None
    because: str
    measures: Mapping[str, Estimate]

    @property
    def record(self) -> MethodRecord:
        """The verdict as `explanations.json` holds it."""
        numbers = {name: plain_estimate(one) for name, one in self.measures.items()}
        return cast("MethodRecord", {"passed": self.passed, "because": self.because, **numbers})


def method_verdict(tested: Sequence[Mapping[str, float]], patients: Sequence[str], *, seed: int) -> MethodVerdict:
    """The verdict from what was found on each case; patients are resampled for the intervals."""
    measures = {
        name: intervals.bootstrap([one.get(name, np.nan) for one in tested], patients, seed=seed, unit="share")
        for name in dict.fromkeys(name for one in tested for name in one)
    }
    if len(tested) < FEWEST:
        return MethodVerdict(
            None, f"tested on {errors.count_phrase(len(tested), 'case')}, which is too few to judge", measures
        )
    faults = list(_faults(measures))
    if faults:
        return MethodVerdict(False, "; ".join(faults), measures)
    if not np.isfinite(measures["randomisation"].value):
        return MethodVerdict(
            None, "the weights cannot be randomised without torch; it passed the other tests", measures
        )
    because = (
        f"absolute rank correlation {measures['randomisation'].value:.2f} with maps of randomised weights; deletion "
        "and insertion better than of random maps and of an edge filter"
    )
    return MethodVerdict(True, because, measures)


def _faults(measures: Mapping[str, Estimate]) -> Iterator[str]:
    alike, stability = measures["randomisation"].value, measures["stability"].value
    if alike > MOST_ALIKE:
        yield f"maps stay alike when weights are randomised (absolute rank correlation {alike:.2f})"
    for other, words in OTHERS.items():
        lows = {curve: measures[f"{curve}_over_{other}"].low for curve in CURVES}
        if worse := [curve for curve, low in lows.items() if low is None or not low > 0]:
            yield f"{' and '.join(worse)} not shown to be better than of {words}"
    if not stability >= LEAST_STABLE:
        yield f"noise of 1 % changes the map (rank correlation {stability:.2f})"


def plain_estimate(estimate: Estimate) -> TestedFigure:
    """The estimate as a JSON record."""
    return TestedFigure(
        value=estimate.value, low=estimate.low, high=estimate.high, n=estimate.n, method=estimate.method
    )
