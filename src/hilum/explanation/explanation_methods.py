"""The methods that make a map of what an answer rests on.

From the network's deepest features: CAM, Grad-CAM and Grad-CAM++ by MONAI, and Score-CAM. From gradients by the input:
integrated gradients and SmoothGrad, by captum. From the attention of a transformer: rollout, plain or weighted by
gradients. From images in which something is hidden: occlusion by captum, and RISE, which need no gradients, so that
every backend has them.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import count as numbers
from typing import Any

import torch
from captum.attr import IntegratedGradients, NoiseTunnel, Occlusion, Saliency
from torch import Tensor, nn
from torch.nn.functional import pad

from hilum.errors import UsageError
from hilum.explanation.case_on_grid import ExplainedWindow, UnfitError
from hilum.lazy import monai_visualize
from hilum.networks import network_family, network_parts, transformer_blocks, vit
from hilum.networks.network_parts import NetworkFeatures

# How near two numbers are that are the same: what a linear layer takes, and the mean of the deepest map.
ALIKE = 1e-4
# Maps that Score-CAM tries: those that vary most.
MOST_MAPS = 64


def gradcam(subject: ExplainedWindow) -> Tensor:
    """(1, 1, *window) Grad-CAM of the deepest map, arXiv:1610.02391."""
    return _by_gradients(subject, "gradcam", monai_visualize.GradCAM)


def gradcam_plus(subject: ExplainedWindow) -> Tensor:
    """(1, 1, *window) Grad-CAM++ of the deepest map, arXiv:1710.11063."""
    return _by_gradients(subject, "gradcam++", monai_visualize.GradCAMpp)


def cam(subject: ExplainedWindow) -> Tensor:
    """(1, 1, *window) class activation map, arXiv:1512.04150: the last layer at each place of the deepest map."""
    features = _case_features(subject, "cam")
    weights, offset = _last_layer(subject, features)
    with _watch(subject, "cam") as scored, torch.no_grad():
        map_maker = monai_visualize.CAM(scored, "peek", fc_layers=lambda _: partial(_weigh, weights, offset))
        maps = map_maker.compute_map(subject.image, class_idx=[0] * len(features.deepest))
    return _on_window(maps, subject, "cam")


def scorecam(subject: ExplainedWindow) -> Tensor:
    """(1, 1, *window) Score-CAM, arXiv:1910.01279: each map weighs what is scored where it is high."""
    deepest = _case_features(subject, "scorecam").deepest
    if deepest.ndim - 2 == len(subject.spatial) and len(deepest) > len(subject.image):
        raise UnfitError("scorecam", "its deepest maps are of single frames, and a mask shows the place in all of them")
    maps = _by_image(deepest, subject, "scorecam")[0][:, None]
    maps = maps[maps.flatten(1).std(dim=1).argsort(descending=True)[:MOST_MAPS]]
    ones, base = (-1, *[1] * (maps.ndim - 1)), blur_maps(subject.image)
    gained = []
    for part in maps.split(subject.at_once()):  # masks of a large window: all of them are never held
        masks = stretch_map(part, subject.spatial)
        low, high = masks.flatten(1).amin(dim=1).reshape(ones), masks.flatten(1).amax(dim=1).reshape(ones)
        shown = (masks - low) / (high - low).clamp(min=1e-12)
        gained.append(subject.scores(shown * subject.image + (1 - shown) * base))
    weights = (torch.cat(gained) - subject.scores(base)).softmax(dim=0)
    return stretch_map((weights.reshape(ones) * maps).sum(dim=0, keepdim=True), subject.spatial).relu()


def _by_gradients(subject: ExplainedWindow, name: str, kind: type[monai_visualize.GradCAM]) -> Tensor:
    _refuse_unknown(subject, name)
    with _watch(subject, name) as scored, torch.enable_grad():
        maps = kind(scored, "peek").compute_map(subject.image, class_idx=0)
    return _on_window(maps.detach(), subject, name)


class _Scored(nn.Module):
    """Images to (batch, 1) the subject's scalar, with its deepest map as the output of the layer `peek`.

    Gradients end at the deepest map: what comes before it is computed as in a prediction.
    """

    def __init__(self, subject: ExplainedWindow, method: str) -> None:
        super().__init__()
        self.peek, self.network, self.subject, self.method = nn.Identity(), subject.module, subject, method

    def forward(self, images: Tensor) -> Tensor:
        score = self.subject.score(images)
        if torch.is_grad_enabled() and not score.requires_grad:
            raise UnfitError(self.method, "its detections have no gradient with respect to its deepest feature map")
        # MONAI's Grad-CAM++ takes the exponential of the score, a factor of the whole map: of 0 it is no overflow.
        return (score - score.detach())[:, None]

    def pass_through(self, output: Any) -> Any:
        """The part's output, whose last tensor has gone through `peek`."""
        if isinstance(output, dict):
            name = list(output)[-1]
            return {**output, name: self.pass_through(output[name])}
        if isinstance(output, (list, tuple)):
            return type(output)([*output[:-1], self.pass_through(output[-1])])
        maps: Tensor = self.peek(output.detach().requires_grad_(torch.is_grad_enabled()))
        if maps.requires_grad:
            maps.register_hook(lambda gradient: gradient.contiguous())  # MONAI takes a view of it
        return maps


@contextmanager
def _watch(subject: ExplainedWindow, method: str) -> Iterator[_Scored]:
    """The subject's network as MONAI's methods want it, for as long as they need it."""
    assert subject.module is not None and subject.family is not None  # noqa: S101 - refused before
    scored = _Scored(subject, method).eval()  # else MONAI puts the network back into training
    part = network_parts.deepest_part(subject.module, _deepest_of(subject.family))
    handle = part.register_forward_hook(lambda _, __, output: scored.pass_through(output))
    try:
        yield scored
    finally:
        handle.remove()


def _case_features(subject: ExplainedWindow, method: str) -> NetworkFeatures:
    """The features of the case itself."""
    _refuse_unknown(subject, method)
    assert subject.module is not None and subject.family is not None  # noqa: S101 - refused before
    inputs = [one for one in (subject.image, subject.context) if one is not None]
    with torch.no_grad():
        return network_parts.compute_features(subject.module, *inputs, at=_deepest_of(subject.family), last=True)


def _deepest_of(family: network_family.Family) -> str:
    """The part whose output is the deepest map."""
    return family.grid_features or family.features


def _refuse_unknown(subject: ExplainedWindow, method: str) -> None:
    if subject.family is None or not subject.family.features:
        raise UnfitError(method, "the deepest feature map of this family is not known")


def _by_image(deepest: Tensor, subject: ExplainedWindow, method: str) -> Tensor:
    """(batch * n, maps, *grid) to (batch, maps, *grid): n slices become an axis, n frames one map each."""
    ndim, count = len(subject.spatial), len(deepest) // len(subject.image)
    axes = deepest.ndim - 2
    if axes == ndim - 1 and count > 1:
        axis = int(str((subject.size or {}).get("axis", 0)))
        deepest = deepest.unflatten(0, (-1, count)).movedim(1, axis + 2)
    elif axes == ndim and count > 1:
        deepest = deepest.unflatten(0, (-1, count)).flatten(1, 2)
    elif axes != ndim:
        raise UnfitError(method, "the deepest features of its network are a vector, which has no place in the image")
    if math.prod(deepest.shape[2:]) == 1:
        raise UnfitError(method, "the deepest feature map of its network is a single voxel")
    return deepest


def _on_window(maps: Tensor, subject: ExplainedWindow, method: str) -> Tensor:
    return stretch_map(_by_image(maps, subject, method), subject.spatial)


def _last_layer(subject: ExplainedWindow, features: NetworkFeatures) -> tuple[Tensor, Tensor]:
    """(maps,) how much each map's mean counts in the scalar, and (1,) what is there without any.

    Raises UnfitError where the mean of the deepest map does not meet a linear layer.
    """
    _by_image(features.deepest, subject, "cam")
    assert subject.module is not None and subject.family is not None  # noqa: S101 - refused before
    layers = network_parts.last_layers(subject.module, _deepest_of(subject.family))
    with torch.enable_grad():
        outputs = {name: one.detach().float().requires_grad_() for name, one in features.outputs.items()}
        subject.objective(outputs).sum().backward()
    moved = {name: one.grad[0] for name, one in outputs.items() if one.grad is not None and one.grad.any()}
    maps = features.pooled.shape[1]
    reason = "no linear layer follows the mean of the deepest feature map"
    name = next(iter(moved), "")
    layer, taken = layers.get(name), features.inputs.get(name)
    if len(moved) != 1 or taken is None or not isinstance(layer, nn.Linear):
        raise UnfitError("cam", reason)
    if taken.ndim != 2 or taken.shape[1] < maps or not torch.allclose(taken[:, :maps], features.pooled, atol=ALIKE):
        raise UnfitError("cam", reason)
    rest = taken[0, maps:] @ layer.weight[:, maps:].T
    bias = layer.bias if layer.bias is not None else torch.zeros_like(moved[name])
    return moved[name] @ layer.weight[:, :maps], ((rest + bias) @ moved[name])[None]


def _weigh(weights: Tensor, offset: Tensor, features: Tensor) -> Tensor:
    """(batch, maps) of one place to (batch, 1)."""
    return (features @ weights)[:, None] + offset


# Of the path between nothing and the image, arXiv:1703.01365 section 5: 20 to 300.
STEPS = 32
# Noisy copies, and their noise as a share of the image's range, arXiv:1706.03825 section 3.
COPIES, NOISE = 16, 0.15


def integrated_gradients(subject: ExplainedWindow) -> Tensor:
    """(1, channels, *window) the share of each number in the score, arXiv:1703.01365; they sum to what 0 lacks of it.

    0 is what a normalised image has on average.
    """
    method = IntegratedGradients(_InputScore(subject, "integrated_gradients"))
    image, batch = torch.nan_to_num(subject.image), subject.at_once(for_gradients=True)
    with torch.enable_grad():
        attributed = method.attribute(image, baselines=0.0, n_steps=STEPS, internal_batch_size=batch)
    return torch.nan_to_num(attributed.detach().float())


def smoothgrad(subject: ExplainedWindow, seed: int = 0) -> Tensor:
    """(1, channels, *window) how much the score changes with each number, in the mean of noisy copies."""
    image, batch = torch.nan_to_num(subject.image), subject.at_once(for_gradients=True)
    spread = float(image.max() - image.min()) * NOISE
    with torch.enable_grad(), torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        method = NoiseTunnel(Saliency(_InputScore(subject, "smoothgrad")))
        attributed = method.attribute(
            image, nt_samples=COPIES, nt_samples_batch_size=batch, stdevs=max(spread, 1e-12), nt_type="smoothgrad"
        )
    return torch.nan_to_num(attributed.detach().float())


class _InputScore:
    """The subject's score of images; of frames that a clip does not have nothing is made up."""

    def __init__(self, subject: ExplainedWindow, method: str) -> None:
        self.subject, self.method = subject, method

    def __call__(self, images: Tensor) -> Tensor:
        inputs = images.masked_fill(torch.isnan(self.subject.image), torch.nan)
        score = self.subject.score(inputs)
        if torch.is_grad_enabled() and not score.requires_grad:
            raise UnfitError(self.method, "its detections have no gradient with respect to the image")
        return score


def attention_map(subject: ExplainedWindow) -> Tensor:
    """(1, 1, *window) attention rollout, arXiv:2005.00928: the share of each patch in what goes to the heads."""
    return _roll_out(subject, "attention", by_gradients=False)


def attention_by_gradients(subject: ExplainedWindow) -> Tensor:
    """(1, 1, *window) rollout of attention times its gradient, the positive part: Chefer et al., arXiv:2103.15679."""
    return _roll_out(subject, "attention_gradients", by_gradients=True)


def _roll_out(subject: ExplainedWindow, name: str, *, by_gradients: bool) -> Tensor:
    if subject.module is None or subject.family is None or not subject.family.attention:
        raise UnfitError(name, "its answer is not computed by attention among all patches of the image")
    if refused := transformer_blocks.without_rollout(subject.module, subject.family.attention):
        raise UnfitError(name, refused)
    if subject.objective.places is not None:
        raise UnfitError(name, "its answer for each voxel also depends on paths that bypass its attention")
    inputs = [one for one in (subject.image, subject.context) if one is not None]
    with torch.set_grad_enabled(by_gradients):
        image = inputs[0].clone().requires_grad_(by_gradients)
        attentions = transformer_blocks.compute_attention(
            subject.module, image, *inputs[1:], at=subject.family.attention
        )
        if attentions.groups and by_gradients:
            raise UnfitError(name, "its attention lies on several grids: its gradients cannot be rolled out together")
        if attentions.groups:
            spatial = tuple(image.shape[2:])
            multiple = getattr(attentions.module, "multiple", None) or [1] * len(spatial)
            return transformer_blocks.roll_out_groups(attentions.groups, spatial, multiple)
        weights = attentions.weights
        if by_gradients:
            gradients = torch.autograd.grad(subject.objective(attentions.outputs).sum(), weights)
            weights = [(one * slope).clamp(min=0) for one, slope in zip(weights, gradients, strict=True)]
        flow = vit.attention_rollout(torch.stack(list(weights), dim=1), weighed=by_gradients)
        # That each patch counts for itself is known before any weight is: it would only lift the whole map.
        identity = torch.eye(flow.shape[-1], device=flow.device) if by_gradients else 0
        return attentions.spread_rollout(flow - identity).detach()


BATCH_OF_MASKS = 8
# Blocks along each axis that are hidden one after the other, by the number of axes; each overlaps the next by half.
BLOCKS = {1: 32, 2: 8, 3: 4}
# RISE, arXiv:1806.07421 section 4: masks of 7 cells an axis, half of them shown; in volumes fewer cells.
CELLS, SHOWN, MASKS = {1: 12, 2: 7, 3: 5}, 0.5, 256
# Images that occlusion shows the network at most, where nobody limits the time.
MOST = 1024


def occlusion(subject: ExplainedWindow, seconds: float | None = None) -> Tensor:
    """(1, channels, *window) how much lower the score is where a block is blurred away.

    Blocks begin outside the image, so that as many hide a voxel at its border as any other: means of fewer vary more,
    and the border would seem to matter.
    seconds: in which it should be done: the blocks become larger where they have to
    """
    blocks, channels = BLOCKS[len(subject.spatial)], subject.joined
    pictures = subject.image.shape[1] // channels
    most = MOST if seconds is None else seconds / _seconds_of_one(subject)
    while blocks > 2 and pictures * (2 * blocks + 1) ** len(subject.spatial) > most:
        blocks -= 1
    sides = [max(1, math.ceil(size / blocks)) for size in subject.spatial]
    steps = [max(1, side // 2) for side in sides]
    outside = [(math.ceil(side / step) - 1) * step for side, step in zip(sides, steps, strict=True)]
    inside = (..., *(slice(far, far + size) for far, size in zip(outside, subject.spatial, strict=True)))
    around = [far for far in reversed(outside) for _ in range(2)]
    with torch.no_grad():
        attributed = Occlusion(lambda padded: subject.score(padded[inside])).attribute(
            pad(subject.image, around),
            sliding_window_shapes=(channels, *sides),
            strides=(channels, *steps),
            baselines=pad(blur_maps(subject.image), around),
            perturbations_per_eval=subject.at_once(),
        )
    return torch.nan_to_num(attributed[inside].float())


def rise(subject: ExplainedWindow, seconds: float | None = None, seed: int = 0) -> Tensor:
    """(1, channels, *window) mean score of random masks that show each voxel, less that of all masks.

    seconds: for which masks are sampled; a number of masks if not said
    """
    random = torch.Generator().manual_seed(seed)
    base, started = blur_maps(subject.image), time.perf_counter()
    total = torch.zeros_like(subject.image)
    shown, scores = torch.zeros_like(total), list[float]()
    for _ in numbers() if seconds is not None else range(MASKS // BATCH_OF_MASKS):
        masks = _masks(subject, random)
        own = subject.scores(masks * subject.image + (1 - masks) * base)
        total += (masks * own.reshape(-1, *[1] * (masks.ndim - 1))).sum(dim=0, keepdim=True)
        shown += masks.sum(dim=0, keepdim=True)
        scores += own.tolist()
        if seconds is not None and time.perf_counter() - started > seconds:
            break
    return total / shown.clamp(min=1e-6) - sum(scores) / len(scores)


def _masks(subject: ExplainedWindow, random: torch.Generator) -> Tensor:
    """(BATCH, channels, *window) of 0 (hidden) to 1 (shown), from coarse grids that are shifted at random."""
    cells = [min(CELLS[len(subject.spatial)], size) for size in subject.spatial]
    pictures = subject.image.shape[1] // subject.joined
    coarse = (torch.rand((BATCH_OF_MASKS, pictures, *[n + 1 for n in cells]), generator=random) < SHOWN).float()
    sides = [math.ceil(size / n) for size, n in zip(subject.spatial, cells, strict=True)]
    wide = stretch_map(coarse, [(n + 1) * side for n, side in zip(cells, sides, strict=True)])
    masks = torch.stack(list(_shift(wide, sides, subject.spatial, random)))
    return masks.repeat_interleave(subject.joined, dim=1).to(subject.image.device)


def _shift(wide: Tensor, sides: list[int], spatial: tuple[int, ...], random: torch.Generator) -> Iterator[Tensor]:
    for mask in wide:
        starts = [int(torch.randint(side, (1,), generator=random)) for side in sides]
        yield mask[(slice(None), *(slice(start, start + size) for start, size in zip(starts, spatial, strict=True)))]


def _seconds_of_one(subject: ExplainedWindow) -> float:
    subject.scores(subject.image)  # the first call prepares more than later ones
    started = time.perf_counter()
    subject.scores(subject.image)
    return time.perf_counter() - started


AUTO, ALL = "auto", "all"
NO_GRADIENT = "needed for gradient computation"
# What "auto" takes where nothing was tested.
USUAL = ("gradcam", "integrated_gradients", "occlusion")


@dataclass(frozen=True)
class Method:
    """A method of explanation.

    of:      (subject) to (1, channels, *window), or one channel for all images; more is more evidence for the target
    module:  whether it needs the network itself: a backend without torch does not have it
    timed:   whether `of` takes `seconds`, for which it samples as much as it can
    for_gradients: whether all layers of the network are kept for gradients by the image
    words:   what the map shows
    """

    name: str
    of: Callable[..., Tensor]
    words: str
    module: bool = True
    timed: bool = False
    for_gradients: bool = False

    def __call__(self, subject: ExplainedWindow, seconds: float | None = None) -> Tensor:
        try:
            values = self.of(subject, seconds=seconds) if self.timed else self.of(subject)
        except RuntimeError as error:  # torch's, of a network that paints over its own numbers
            if NO_GRADIENT not in str(error):
                raise
            raise UnfitError(self.name, "its network overwrites values that gradients need") from error
        return values.float()


METHODS: Mapping[str, Method] = {
    one.name: one
    for one in (
        Method("cam", cam, "the deepest maps, weighted by the last layer"),
        Method("gradcam", gradcam, "the deepest maps, weighted by the gradient of the target"),
        Method("gradcam++", gradcam_plus, "the deepest maps, weighted by positive gradients of the target"),
        Method("scorecam", scorecam, "the deepest maps, each weighted by the score of the image under it"),
        Method(
            "integrated_gradients",
            integrated_gradients,
            "the contribution of each place to the score",
            for_gradients=True,
        ),
        Method("smoothgrad", smoothgrad, "how much the score changes with each place", for_gradients=True),
        Method("occlusion", occlusion, "the loss of score where the image is blurred", module=False, timed=True),
        Method("rise", rise, "the score of random masks that show each place", module=False, timed=True),
        Method("attention", attention_map, "attention of the class token to each patch, through all layers"),
        Method("attention_gradients", attention_by_gradients, "attention, weighted by the gradient of the target"),
    )
}


def named_methods(asked: str | Sequence[str]) -> list[Method]:
    """Methods by name; `AUTO` and `ALL` stand for all of them. UsageError for an unknown one."""
    names = [name.strip() for name in asked.split(",")] if isinstance(asked, str) else list(asked)
    if names in ([AUTO], [ALL]):
        return list(METHODS.values())
    for name in names:
        if name not in METHODS:
            choice = ", ".join([AUTO, ALL, *METHODS])
            raise UsageError(f"there is no method {name!r}", "--method", f"Choose one or more of {choice}")
    return [METHODS[name] for name in dict.fromkeys(names)]


# Of an axis: a blur that leaves no structure smaller than a quarter of the image.
BLUR = 1 / 8
LINEAR = {1: "linear", 2: "bilinear", 3: "trilinear"}


def blur_maps(images: Tensor, share: float = BLUR) -> Tensor:
    """(batch, channels, *spatial) after a Gaussian of a standard deviation of so much of each axis; edges go on."""
    smooth = torch.nan_to_num(images)
    for axis in range(2, images.ndim):
        size = images.shape[axis]
        if size > 1:
            smooth = torch.movedim(torch.movedim(smooth, axis, -1) @ _gaussian(size, share * size, images), -1, axis)
    return smooth.where(~torch.isnan(images), images)


def _gaussian(size: int, deviation: float, like: Tensor) -> Tensor:
    """(size, size) weights of each voxel, by row, in each blurred one; what would lie outside counts as the edge."""
    places = torch.arange(size, device=like.device, dtype=like.dtype)
    reach = int(4 * deviation) + 1
    wide = torch.arange(-reach, size + reach, device=like.device, dtype=like.dtype)
    weights = torch.exp(-0.5 * ((wide[:, None] - places[None]) / max(deviation, 1e-3)) ** 2)
    weights = weights / weights.sum(dim=0, keepdim=True)
    inside = wide.clamp(0, size - 1).long()
    return torch.zeros(size, size, device=like.device, dtype=like.dtype).index_add_(0, inside, weights)


def stretch_map(maps: Tensor, spatial: Sequence[int]) -> Tensor:
    """(batch, channels, *coarse) to (batch, channels, *spatial), linear along each axis."""
    mode = LINEAR[len(spatial)]
    return torch.nn.functional.interpolate(maps, size=tuple(spatial), mode=mode, align_corners=False)
