"""Several processes that train one model: the number of this one, and what they exchange.

Each computes a part of every batch. The outputs of all parts are joined before the loss, so that any loss, also
one that is no mean over samples, is that of the whole batch; gradients are added by torch's DistributedDataParallel.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar, cast

from hilum.errors import PlanError
from hilum.lazy import torch

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class Ranks:
    """This process is number `rank` of `count`; number 0 leads: only it writes, validates and reports."""

    rank: int = 0
    count: int = 1

    @classmethod
    def here(cls) -> Ranks:
        """The ranks of torch's process group; one process where there is none."""
        if not (torch.distributed.is_available() and torch.distributed.is_initialized()):
            return cls()
        return cls(torch.distributed.get_rank(), torch.distributed.get_world_size())

    @property
    def leads(self) -> bool:
        """Whether this process writes, validates and decides."""
        return self.rank == 0

    def part(self, batch: int) -> range:
        """The samples of a batch that this process computes. Raises PlanError where they cannot be shared evenly."""
        if batch % self.count:
            more = -(-batch // self.count) * self.count
            problem = f"{batch} samples a step cannot be shared evenly by {self.count} processes"
            raise PlanError(problem, "training.batch", f"Give --set training.batch={more}, or another number")
        share = batch // self.count
        return range(self.rank * share, (self.rank + 1) * share)

    def agree(self, value: T) -> T:
        """The value that the leading process has."""
        if self.count == 1:
            return value
        values = [value if self.leads else None]
        torch.distributed.broadcast_object_list(values, src=0, device=torch.device("cpu"))
        return cast("T", values[0])

    def whole(self, part: Tensor) -> Tensor:
        """The parts of all processes in their order; gradients flow back into the own one."""
        if self.count == 1:
            return part
        parts = [torch.empty_like(part, memory_format=torch.contiguous_format) for _ in range(self.count)]
        torch.distributed.all_gather(parts, part.detach().contiguous())
        parts[self.rank] = part
        return torch.cat(parts)

    def share(self, weight: Tensor) -> Tensor:
        """A weight whose gradient is parted evenly: every process has the whole of it, and gradients are added."""
        if self.count == 1:
            return weight
        share = weight / self.count
        return share + (weight - share).detach()

    def own_part(self, batch: Tensor) -> Tensor:
        """The part of a batch that this process computes."""
        return batch.chunk(self.count)[self.rank]


SINGLE_PROCESS = Ranks()
