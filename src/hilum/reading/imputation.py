"""A missing image of a case, made of its other images by an enhancement model whose target it was."""

from __future__ import annotations

import hashlib
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache, partial

import numpy as np

from hilum.errors import UsageError
from hilum.files import numpy_file
from hilum.files.storage import cache, hashing
from hilum.runtime import Model, model_files
from hilum.transforms import channel_stack
from hilum.values import Case, Dataset, Image, LazyMapping

FLAG = "--impute"


def with_imputed_images(dataset: Dataset, path: str) -> Dataset:
    """The data set, of which each case that lacks the model's target gets it, where it has what the model needs.

    Raises UsageError for a model that makes no image, or whose target has no name.
    """
    name, needed, digest = _target_of(path)
    order = next((tuple(case.images) for case in dataset if name in case.images), ())
    cases = (_with_imputed(case, path, name, needed, digest, order) for case in dataset)
    return replace(dataset, cases=tuple(cases))


def in_order(case: Case, names: Sequence[str]) -> Case:
    """The case with its images in this order, where it has exactly these."""
    if {*case.images} != {*names}:
        return case
    return replace(case, images=LazyMapping({name: partial(case.images.__getitem__, name) for name in names}))


@lru_cache(maxsize=4)
def _model(path: str) -> Model:
    return model_files.load(path)


def _target_of(path: str) -> tuple[str, tuple[str, ...], str]:
    """The channel that a model makes, those that it needs, and its SHA-256."""
    model = _model(path)
    head = next((one for one in model.task.heads.values() if one.holds_intensities), None)
    if head is None:
        raise UsageError(
            f"is a model of {model.task.name}, and makes no image", f"{FLAG} {path}", "Name an enhancement"
        )
    if len(head.called) != 1 or head.called[0].isdigit():
        problem, remedy = "its target has no name", "Train it with names, as in --column image=t1,target=flair"
        raise UsageError(problem, f"{FLAG} {path}", remedy)
    return head.called[0], model.preprocessing.channels, model.sha256


def _with_imputed(case: Case, path: str, name: str, needed: Sequence[str], digest: str, order: Sequence[str]) -> Case:
    """The case with the image that it lacks; as it is where it lacks nothing, or what the model needs."""
    if name in case.images:
        return case
    # A model of one image without a name takes the one that there is.
    names = tuple(case.images) if len(needed) == 1 and needed[0].isdigit() else tuple(needed)
    if len(names) != len(needed) or not {*names} <= {*case.images}:
        return case
    key = hashlib.sha256(f"{hashing.content_hash(case)} {digest}".encode()).hexdigest()
    loaders = {one: partial(case.images.__getitem__, one) for one in case.images}
    loaders[name] = partial(_imputed_image, case, path, name, names, key)
    ordered = [one for one in order if one in loaders] + [one for one in loaders if one not in order]
    images = LazyMapping({one: loaders[one] for one in ordered})
    return replace(case, images=images, key=f"{case.key}|{name} by {digest}")


def _imputed_image(case: Case, path: str, name: str, names: Sequence[str], key: str) -> Image:
    """The image that the model makes, from the cache where it was made before."""
    file = cache.cache_folder() / "imputed" / f"{key}.npy"
    given = channel_stack.stack_images({one: case.images[one] for one in names}, case.id)
    model = _model(path)
    if not file.exists():
        renamed = replace(given, channels=model.preprocessing.channels)
        values = np.asarray(model.predict(renamed).maps[model.task.own_maps[0]].data, dtype=np.float32)
        file.parent.mkdir(parents=True, exist_ok=True)
        with cache.write_cache_entry(file) as unfinished:
            numpy_file.write_array(values, unfinished)
    note = f"{name} was not measured: a model made it of {' and '.join(names)}"
    pixels = np.load(file, allow_pickle=False)[None]
    return replace(given, pixels=pixels, channels=(name,), padding=None, notes=(*given.notes, note), facts={})
