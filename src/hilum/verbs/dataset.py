"""`dataset`: the cases of a data set as a network sees them, for whoever writes a training loop of their own."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from hilum import errors, keywords
from hilum.errors import UsageError
from hilum.lazy import torch
from hilum.options.training import CasesOptions
from hilum.planning import plan_checks
from hilum.runs import plan_request, training_jobs
from hilum.runs.plan_request import PlanRequest
from hilum.runtime import Context
from hilum.training.data.batch_loading import Loader
from hilum.training.data.prepared_store import PreparedCase
from hilum.training.step import batch_loss
from hilum.values import Plan
from hilum.values.dataset_cases import SPLITS
from hilum.verbs import plan

if TYPE_CHECKING:
    from torch import Tensor

# What stands beyond the edge of images and their maps in a batch, and in rows of boxes that are none.
EDGE, NO_BOX = 0, -1
# The tensors of an item that `collate` stacks.
STACKED = ("image", "target", "covariates")

# A case by names, or several: its identifiers, and tensors.
PreparedItem = Mapping[str, Any]


class PreparedCases(torch.utils.data.Dataset[Any]):
    """Prepared cases, whole, each as a mapping, or as what a function makes of it.

    case, patient, path: names, and the file of the first image
    image:      (channels, *spatial) float32
    target:     as the task has it: one tensor, or {part: tensor}
    covariates: (entries,) float32 as the network gets them, called by `covariate_names`; none without covariates

    plan:      the choices by which they were prepared: grid, intensities, targets, covariates
    augment:   whether each is changed by the plan's augmentation, a function of the plan's seed, the epoch and the item
    transform: a function of the item, after augmentation; its random numbers are its own
    """

    def __init__(
        self,
        cases: Sequence[PreparedCase],
        choices: Plan,
        paths: Sequence[str],
        *,
        augment: bool = False,
        transform: Callable[[PreparedItem], Any] | None = None,
    ) -> None:
        self.cases = tuple(cases)
        self.plan = choices
        self.paths = tuple(paths)
        self.augment = augment
        self.transform = transform
        self.settings = plan_checks.checked_settings(choices)
        self.epoch = 0

    @property
    def covariate_names(self) -> tuple[str, ...]:
        """The meaning of each number of `covariates`."""
        return Context.from_settings(self.settings.network.context).entries

    def set_epoch(self, epoch: int) -> None:
        """Sample the changes of another epoch from now on, as before each pass over a `DataLoader`."""
        self.epoch = epoch

    def __len__(self) -> int:
        return len(self.cases)

    def __getitem__(self, number: int) -> Any:
        item = self._item(number)
        return item if self.transform is None else self.transform(item)

    def _item(self, number: int) -> PreparedItem:
        """The case as a mapping, augmented where that is asked for."""
        if not -len(self) <= number < len(self):
            raise IndexError(f"item {number} of {len(self)}")
        number %= len(self)
        case = self.cases[number].in_memory
        covariates = torch.zeros(0) if case.context is None else torch.from_numpy(np.array(case.context))
        whole = tuple(slice(None) for _ in case.shape)
        image, arrays = torch.from_numpy(np.array(case.network_input(whole))), case.kind.to_arrays(case.target)
        targets = {name: torch.from_numpy(np.array(array)) for name, (_, array) in arrays.items()}
        if self.augment:
            step = self.epoch * len(self) + number
            batch = Loader((case,), case.shape, 1, 0.0, self.settings.training.seed).of_step(step)
            seen = batch_loss.augment_batch(batch, self.settings, "cpu")
            first: Any = batch_loss.change_each_array(seen.targets, lambda one: one[0])
            changed: PreparedItem = case.kind.to_arrays(first)
            image, targets = seen.images[0], {name: one.to(targets[name].dtype) for name, (_, one) in changed.items()}
        target = next(iter(targets.values())) if len(targets) == 1 else targets
        names = {"case": case.id, "patient": case.patient, "path": self.paths[number]}
        return {**names, "image": image, "target": target, "covariates": covariates}

    def collate(self, items: Sequence[PreparedItem]) -> PreparedItem:
        """A batch of items of any shapes, for the `collate_fn` of a `DataLoader`.

        Images and maps end in zeros up to the largest, rows of boxes in rows of -1; `shape`, (batch, axes), has the
        sizes without these. All else, such as names and what a transform adds, is a list.
        """
        images = [item["image"] for item in items]
        shapes = torch.tensor([image.shape[1:] for image in images])
        targets = [item["target"] if isinstance(item["target"], Mapping) else {"": item["target"]} for item in items]
        joined = {name: _stack_alike([own[name] for own in targets], images) for name in targets[0]}
        lists = {name: [item[name] for item in items] for name in items[0] if name not in STACKED}
        return {
            **lists,
            "image": _stack_alike(images, images),
            "target": joined.get("", joined),
            "covariates": torch.stack([item["covariates"] for item in items]),
            "shape": shapes,
        }


def _stack_alike(tensors: Sequence[Tensor], images: Sequence[Tensor]) -> Tensor:
    """Tensors of images in one shape: what lies on their grids is continued at its ends, rows are added to others."""
    axes = images[0].ndim - 1
    is_map = all(one.shape[-axes:] == image.shape[1:] for one, image in zip(tensors, images, strict=True))
    most = [max(sizes) for sizes in zip(*(one.shape for one in tensors), strict=True)]
    return torch.stack(
        [
            torch.nn.functional.pad(
                one,
                [end for size, own in zip(most[::-1], one.shape[::-1], strict=True) for end in (0, size - own)],
                value=EDGE if is_map else NO_BOX,
            )
            for one in tensors
        ]
    )


@keywords.takes(CasesOptions)
def dataset(options: CasesOptions) -> PreparedCases:
    """Return a `torch.utils.data.Dataset` of the cases of one part, prepared as `train` would prepare them.

    part:        train, val, calibration or test, as `plan` parts the patients
    assignments: {"section.name": value} of the plan set by hand
    covariates:  columns that each item has as numbers, as for `train`
    augment:     whether items are changed by the plan's augmentation
    transform:   a function of each item, as a transform of MONAI with keys, of torchvision (v2), or of your own; items
                 are what it returns
    reading:     the fields of `ReadingOptions`: layout, labels, patient, column, modality and so on
    Raises what `plan` raises, and UsageError for a part that is none or has no case, or for a transform that is no
    function.
    """
    part, reading = options.part, options.reading
    if part not in SPLITS:
        raise UsageError(f"there is no part {part!r}", "part", f"Choose one of {errors.list_phrase(SPLITS)}")
    if options.transform is not None and not callable(options.transform):
        remedy = "Give a function that gets an item, as in transform=lambda item: item"
        raise UsageError(f"{options.transform!r} is no function", "transform", remedy)
    wishes = plan.with_covariates(dict(options.assignments or {}), options.covariates)
    request = PlanRequest(None, "cpu", options.threads, options.seed, options.task, assignments=wishes, reading=reading)
    decided = plan_request.plan_from_request(options.data, request)
    cases = [case for case in decided.examination.dataset if decided.parts.get(case.id) == part]
    if not cases:
        present = [one for one in SPLITS if one in decided.parts.values()]
        raise UsageError(f"no case is in the part {part}", "part", f"Choose one of {errors.list_phrase(present)}")
    prepared = training_jobs.prepare_cases(cases, plan_checks.checked_settings(decided.plan), reading)
    paths = [str(case.files[0]) if case.files else "" for case in cases]
    return PreparedCases(prepared, decided.plan, paths, augment=options.augment, transform=options.transform)
