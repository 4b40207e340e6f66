"""Networks by the name of their family: building, settings for images, and initial weights."""

from __future__ import annotations

import sys
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from hilum import errors, plugins
from hilum.errors import PlanError
from hilum.networks import ELSEWHERE, NETWORKS, member_catalogue, weight_loading
from hilum.networks.member_catalogue import HEADS, REFERENCE, FamilyMember
from hilum.networks.network_family import Family, FusionSettings, NetworkSize, Sized
from hilum.networks.weight_loading import LoadedWeights
from hilum.values import Head

if TYPE_CHECKING:
    from torch.nn import Module

# In the size of any family: whether the last layers are distributions of weights.
BAYESIAN = "bayesian"
# Problem and remedy for heads that a family does not have, by the heads that it has.
OTHERWISE = {
    frozenset({"dense"}): ("has one map of outputs and nothing else", "Choose unet or resnet"),
    frozenset({"vector"}): ("has no output for every voxel", "Choose unet"),
    frozenset({"boxes"}): ("predicts boxes only", "Choose unet or resnet"),
    frozenset({"objects"}): ("segments instances only", "Choose unet or resnet"),
}


def family_names() -> tuple[str, ...]:
    """Our families, and those that other packages add under the entry point `hilum.networks`."""
    return tuple(sorted(_targets()))


def own_families() -> tuple[str, ...]:
    """The families of this folder."""
    return tuple(sorted(name for name, value in _targets().items() if value.startswith("hilum.networks.")))


def searched_families() -> tuple[str, ...]:
    """The families that a search may try, in their order."""
    order = {name: family_of(name).search_order for name in family_names()}
    return tuple(sorted(filter(order.get, order), key=order.__getitem__))


def family_of(name: str) -> Family:
    """The family of this name; PlanError for an unknown one."""
    refuse_unknown_family(name)
    return _import_family(name, _targets()[name])


def refuse_unknown_family(name: object) -> None:
    """PlanError for a name that no family has, with what one asks for in its place; no family is imported."""
    if not isinstance(name, str) or name not in _targets():
        remedy = errors.nearest_remedy(str(name), family_names(), ELSEWHERE)
        raise PlanError(f"there is no network {name!r}", "network.name", remedy)


def build(
    name: str,
    channels: int,
    spatial_dims: int,
    heads: Mapping[str, Head],
    size: NetworkSize,
    context: int = 0,
    fusion: FusionSettings | None = None,
) -> Module:
    """Return a network whose `forward(images, context=None)` gives `{head: tensor}`.

    images:  (batch, channels, *spatial)
    size:    the family's own settings (width, strides, blocks, ...); `bayesian` is for `with_variational_layers`
    context: number of covariates, (batch, context); 0 for none
    fusion:  for a family with a choice: `method`, one of the family's `fusion_methods`, `narrow`, `sparsity`, `courses`
    Raises PlanError for an unknown name, for heads, covariates or axes that the family cannot have, for wrong settings.
    """
    family = family_of(name)
    method = (fusion or {}).get("method")
    if context and method is not None and method not in family.fusion_methods:
        problem = f"{name} cannot take covariates by {method!r}"
        raise PlanError(problem, "network.context_fusion", f"Choose {' or '.join(family.fusion_methods)}")
    if spatial_dims not in (1, 2, 3):
        raise PlanError(f"there is no network in {spatial_dims} dimensions", "preprocessing.ndim", "Choose 1 to 3")
    if spatial_dims not in family.axes:
        raise PlanError(f"{name} has no network in {spatial_dims} dimensions", "network.name", family.otherwise)
    _refuse_heads(name, family, heads)
    if context and not family.takes_context:
        remedy = "Choose a family that takes them, such as resnet, vit or unet, or leave the covariates out"
        raise PlanError(f"{name} takes no covariates", "network.context", remedy)
    try:
        return family.build(
            channels, spatial_dims, **head_arguments(name, heads), **family_settings(name, heads, size, context, fusion)
        )
    except (TypeError, ValueError, RuntimeError) as error:  # torch refuses sizes with a RuntimeError
        remedy = "Correct network.size, or plan again with another --set network.name"
        raise PlanError(f"{name} cannot be built: {error}", "network.size", remedy) from error


def head_arguments(name: str, heads: Mapping[str, Head]) -> dict[str, dict[str, int]]:
    """The heads as the arguments of the family's `build`: `dense`, `vectors` or both, each {head: channels}."""
    dense = {key: head.count for key, head in heads.items() if head.is_dense}
    vectors = {key: head.count for key, head in heads.items() if head.is_vector}
    answers = family_of(name).answers
    return {
        **({"dense": dense} if answers - {"vector"} else {}),
        **({"vectors": vectors} if "vector" in answers else {}),
    }


def family_settings(
    name: str,
    heads: Mapping[str, Head],
    size: NetworkSize,
    context: int,
    fusion: FusionSettings | None = None,
) -> dict[str, object]:
    """A family's settings with its preset, and those that the task adds: `unit` of boxes, `context` and `fusion`."""
    family = family_of(name)
    covariates = {"context": context, **({"fusion": dict(fusion)} if fusion and family.fusion_methods else {})}
    units = [head.unit for head in heads.values() if head.is_dense]
    unit = {"unit": units[0]} if units and family.in_voxels else {}
    conditions = [head.conditions for head in heads.values() if head.conditions is not None]
    conditioned = (
        dict(zip(("classes", "labels"), conditions[0], strict=True)) if conditions and family.synthesises else {}
    )
    settings = {**family.preset, **size, **unit, **conditioned, **(covariates if context else {})}
    return {name: value for name, value in settings.items() if name != BAYESIAN}


def learning_rate_factor(name: str, answers: str) -> tuple[float, str]:
    """The family's factor of the usual learning rate, and the reason; 1 where nothing else was measured.

    answers: "dense" or "vector". Raises PlanError for an unknown name.
    """
    return family_of(name).rate.get(answers, (1.0, ""))


def size_for(
    name: str,
    patch: Sequence[int],
    strides: Sequence[Sequence[int]],
    device: str,
    heads: Mapping[str, Head] | None = None,
) -> Sized:
    """The family's settings for images of this patch, the reason and its source.

    strides: factors by which each of several stages may reduce each axis, whose product divides `patch`
    heads:   where they have the size of objects, a family with `size_of` follows it
    Raises PlanError for an unknown name.
    """
    family = family_of(name)
    if family.size_for is None:
        return dict(family.preset), "the family's own defaults", ""
    size, because, source = family.size_for(patch, strides, device)
    if family.preset:
        # its own choice wins
        size = {**size, **family.preset, **size}
        source = family.paper
    because = "; ".join(filter(None, [because, family.preset_reason]))
    units = [head.unit for head in (heads or {}).values() if head.holds_boxes or head.tells_objects]
    if units and family.size_of is not None:
        more, why = family.size_of(max(units))
        size = {**size, **more}
        because = f"{because}; {why}"
    return size, because, source


def load_pretrained(
    module: Module,
    name: str,
    size: NetworkSize,
    source: str | Path,
    inflation: str = "mean",
    groups: Mapping[str, str] | None = None,
    minimum: float = 0.0,
) -> LoadedWeights:
    """Load weights, as far as names and shapes agree, into a module of `build`; return what fitted.

    source:    "auto" for the family's published weights, else a file of weights (safetensors or torch's own)
    inflation: how kernels get a third axis: "mean" or "centre"
    groups:    of the network's tensors, as `tensor_groups` finds them
    minimum:   share of the encoder's tensors that must be found
    Raises PlanError where too little fits or nothing is published, ResourceError where a download fails, IntegrityError
    for a file without weights or with code.
    """
    return weight_loading.take_over_weights(module, family_of(name), size, source, inflation, groups, minimum)


def builder_source(name: str) -> tuple[Path, str]:
    """The file of a family's `build`, and its name there, for the copy in a package."""
    builder = family_of(name).build
    return Path(str(sys.modules[builder.__module__].__file__)), builder.__qualname__


def family_members(families: Iterable[str] | None = None) -> tuple[FamilyMember, ...]:
    """Kinds of output and size of all families, or of those named, in one, two and three axes."""
    every = [_member(name, axes) for name in families or family_names() for axes in REFERENCE]
    return tuple(one for one in every if one is not None)


def _member(name: str, axes: int) -> FamilyMember | None:
    patch = REFERENCE[axes]
    size, _, _ = size_for(name, patch, member_catalogue.plan_strides(patch), "cpu")
    family = family_of(name)
    answers = [task for task, head_for in HEADS.items() if _has(family, head_for(axes))]
    return member_catalogue.plan_member(name, axes, size, build, family.paper, answers)


def _has(family: Family, head: Head) -> bool:
    return head.answers in family.answers or (head.is_dense and "dense" in family.answers)


def _refuse_heads(name: str, family: Family, heads: Mapping[str, Head]) -> None:
    """PlanError for a head that the family does not have."""
    for key, head in heads.items():
        if not head.answers:
            raise PlanError(f"{name} has no output of the kind of {key!r} ({head})", "network.name", "Choose another")
        if not _has(family, head):
            problem, remedy = OTHERWISE.get(family.answers, (f"has no output of the kind of {key!r}", "Choose another"))
            raise PlanError(f"{name} {problem}", "network.name", remedy)
        if head.conditions is not None and not family.synthesises:
            raise PlanError(f"{name} makes no images out of noise", "network.name", "Choose diffusion_unet")


def _import_family(name: str, target: str) -> Family:
    value = plugins.load_target(target)
    if not isinstance(value, Family):
        problem = f"{target} is not a hilum.networks.Family"
        remedy = "Update the package that adds it"
        raise PlanError(f"{name} cannot be used: {problem}", "network.name", remedy)
    return value


def _targets() -> Mapping[str, str]:
    """{name: module:value} of each family."""
    return plugins.targets_of(NETWORKS, "hilum.networks")
