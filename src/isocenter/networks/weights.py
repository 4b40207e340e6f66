"""Weights that others published or left in a file, taken into a network as far as they fit."""

from __future__ import annotations

import hashlib
import importlib
import os
import re
import socket
import urllib.error
import urllib.request
from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from pathlib import Path
from typing import TYPE_CHECKING, Any

from isocenter.errors import IntegrityError, PlanError, ResourceError
from isocenter.lazy import torch

if TYPE_CHECKING:
    from types import ModuleType

    from torch import Tensor
    from torch.nn import Module

WHERE = "network.pretrained"
# What wrappers put before a tensor's name: DataParallel, torch.compile, Lightning.
WRAPPERS = re.compile(r"^((module|_orig_mod|model|network|net)\.)+")
# Under which name training programs keep the weights beside other things.
NESTED = ("state_dict", "model_state_dict", "model", "network_weights", "net")
NAMED = 6  # tensors that stay fresh are named up to this number
# Where weights are published, unless a family or HF_ENDPOINT names another place, and s that are waited for a word from
# there: its own client tries again and again for about a minute.
HUB, PATIENCE = "https://huggingface.co", 5.0


def take_over(module: Module, family: ModuleType, size: Mapping[str, Any], source: str | Path) -> str:
    """Weights whose names and shapes agree into the module; says what fitted.

    family: the file of the network; it may have `published(channels, size)`, with the address that it fetches from as
            `PUBLISHED_AT` where that is not the hub's, and `translated(name)`
    source: "auto" for the family's published weights, else a file: safetensors or torch's own, without code
    The first convolution is adapted to another number of channels as timm does: summed, or repeated and rescaled.
    Raises PlanError where nothing fits or nothing is published, ResourceError where it cannot be fetched.
    """
    own = module.state_dict()
    if str(source) == "auto":
        given, from_where = _published(own, family, size), f"the published weights of {size.get('model', 'it')}"
    else:
        path = Path(source)
        given, from_where = read_weights(path), f"{path.name} with SHA-256 {_digest(path)[:16]}"
    named = _named(given, own, family)
    channels = _channels(named, own)
    fitting = {
        name: value for name in named if name in own if (value := _fit(named[name], own[name], channels)) is not None
    }
    counted = [name for name in own if own[name].ndim]
    if not any(name in fitting for name in counted):
        raise PlanError("not one weight fits the plan's network", str(source), "Give weights of the same network")
    module.load_state_dict({**own, **fitting})
    return _said(counted, fitting, channels, from_where)


def read_weights(path: Path) -> dict[str, Tensor]:
    """Tensors by name of a safetensors file, or of torch's own where it needs no code; else IntegrityError."""
    try:
        with path.open("rb") as file:
            start = file.read(9)
    except OSError as error:
        raise PlanError(f"cannot be read ({error.strerror})", str(path), "Give a file of weights") from error
    from safetensors.torch import load_file  # it brings torch

    try:
        # Eight bytes of length, then JSON: safetensors. All else is left to torch, which runs no code of the file.
        found = load_file(path) if start[8:] == b"{" else torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # torch's reader raises whatever a strange byte leads it to
        problem = str(error).partition("\n")[0] or type(error).__name__
        remedy = "Weights are read from safetensors, or from torch files that hold tensors only"
        raise IntegrityError(f"holds no weights ({problem})", str(path), remedy) from error
    return _unwrapped(found, path)


def _unwrapped(found: Any, path: Path) -> dict[str, Tensor]:
    for name in NESTED:
        if isinstance(found, Mapping) and isinstance(found.get(name), Mapping):
            found = found[name]
    tensors = (
        {str(name): value for name, value in found.items() if torch.is_tensor(value)}
        if isinstance(found, Mapping)
        else {}
    )
    if not tensors:
        raise IntegrityError("holds no tensors by name", str(path), "Give the state dict of a network")
    return tensors


def _published(own: Mapping[str, Tensor], family: ModuleType, size: Mapping[str, Any]) -> dict[str, Tensor]:
    fetch = getattr(family, "published", None)
    if fetch is None:
        raise PlanError("this family has no published weights", WHERE, "Give a file: --pretrained FILE")
    silence = ""
    try:
        with _in_time(getattr(family, "PUBLISHED_AT", os.environ.get("HF_ENDPOINT") or HUB)) as silence:
            return fetch(_first(own).shape[1], size)
    except ValueError as error:
        raise PlanError(str(error), WHERE, "Name another model, or give a file: --pretrained FILE") from error
    except Exception as error:  # whatever the clients of the hub raise where there is no way to it
        problem = silence or str(error).partition("\n")[0] or type(error).__name__
        remedy = "Get the file where there is a network, and give it: --pretrained FILE"
        raise ResourceError(f"the published weights cannot be fetched ({problem})", WHERE, remedy) from error


@contextmanager
def _in_time(address: str) -> Iterator[str]:
    """Where nobody answers there soon, clients look at what was fetched before, and wait no longer; says why."""
    hub: Any = importlib.import_module("huggingface_hub.constants")
    before, waited, silence = hub.HF_HUB_OFFLINE, socket.getdefaulttimeout(), ""
    if not before:
        silence = _silence(address)
    hub.HF_HUB_OFFLINE = before or bool(silence)
    socket.setdefaulttimeout(PATIENCE if silence else waited)
    try:
        yield silence
    finally:
        hub.HF_HUB_OFFLINE = before
        socket.setdefaulttimeout(waited)


def _silence(address: str) -> str:
    """Why nobody answers there; nothing where somebody does, whatever they say."""
    try:
        urllib.request.urlopen(urllib.request.Request(address, method="HEAD"), timeout=PATIENCE).close()  # noqa: S310 - the hub's own address
    except urllib.error.HTTPError:
        return ""
    except (OSError, ValueError) as error:
        return f"{address} does not answer: {getattr(error, 'reason', error)}"
    return ""


def _named(given: Mapping[str, Tensor], own: Mapping[str, Tensor], family: ModuleType) -> Mapping[str, Tensor]:
    """The tensors by our names: of the known ways to name them, the one under which most are ours."""
    bare = {WRAPPERS.sub("", name): value for name, value in given.items()}
    translated = getattr(family, "translated", str)
    readings = [given, bare, {translated(name): value for name, value in bare.items()}]
    readings += [
        {f"{child}.{name}": value for name, value in bare.items()} for child in {name.partition(".")[0] for name in own}
    ]
    return max(readings, key=lambda reading: sum(name in own for name in reading))


def _first(own: Mapping[str, Tensor]) -> Tensor:
    """The weight of the first convolution."""
    return next(value for value in own.values() if value.ndim >= 4)


def _channels(named: Mapping[str, Tensor], own: Mapping[str, Tensor]) -> tuple[int, int]:
    """Of the images that the weights were made for, and of ours."""
    ours = _first(own)
    theirs = next((named[name] for name, value in own.items() if value is ours and name in named), ours)
    return (int(theirs.shape[1]) if theirs.ndim == ours.ndim else int(ours.shape[1])), int(ours.shape[1])


def _fit(value: Tensor, own: Tensor, channels: tuple[int, int]) -> Tensor | None:
    """The tensor as it fits ours: itself, or adapted where it only takes images of other channels; else None."""
    if value.shape == own.shape:
        return value
    theirs, ours = channels
    adapted = (value.shape[0], ours, *value.shape[2:])
    if value.ndim < 4 or value.shape[1] != theirs or tuple(own.shape) != adapted:
        return None
    adapt = importlib.import_module("timm.models").adapt_input_conv  # it brings torch, and is seldom needed
    flat = value.flatten(3)  # timm's function knows two axes; a third only lies beside the second
    return adapt(ours, flat, base_chans=theirs).reshape(adapted)


def _said(counted: list[str], fitting: Mapping[str, Tensor], channels: tuple[int, int], from_where: str) -> str:
    fresh = [name for name in counted if name not in fitting]
    said = f"{len(counted) - len(fresh)} of {len(counted)} tensors from {from_where}"
    if channels[0] != channels[1]:
        said += f"; the first convolution adapted from {channels[0]} to {channels[1]} channels"
    if fresh:
        more = f" and {len(fresh) - NAMED} more" if len(fresh) > NAMED else ""
        said += f"; fresh: {', '.join(fresh[:NAMED])}{more}"
    return said


def _digest(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
