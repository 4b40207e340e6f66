"""MONAI's networks in the form of ours: one named output."""

from __future__ import annotations

from torch import Tensor, nn

from hilum import errors
from hilum.errors import FormatError


class OneHead(nn.Module):
    """(batch, channels, *patch) to {head: (batch, outputs, *patch)}; of several resolutions the finest.

    count: of the outputs that are described
    where: the description
    head:  its name; of any but "mask" the outputs are of the whole image, (batch, outputs)
    plane: the axis along which a network of slices sees one at a time; None for one of as many axes as the patch
    order: in which its outputs come; empty for their own
    """

    def __init__(
        self,
        network: nn.Module,
        count: int,
        where: str,
        *,
        head: str = "mask",
        plane: int | None = None,
        order: tuple[int, ...] = (),
    ) -> None:
        super().__init__()
        self.network = network
        self.count = count
        self.where = where
        self.head = head
        self.plane = plane
        self.order = order

    def forward(self, images: Tensor) -> dict[str, Tensor]:
        """(batch, channels, *patch) to {head: outputs}; FormatError for another number of them, or of another form."""
        try:
            outputs = self.network(images if self.plane is None else images.squeeze(self.plane + 2))
        except RuntimeError as error:
            if errors.is_out_of_memory(error):
                raise
            problem = f"its network takes no windows of {tuple(images.shape[2:])} ({str(error).partition(chr(10))[0]})"
            raise FormatError(problem, self.where, "Write a roi_size that its strides divide") from error
        only: Tensor = outputs[0] if isinstance(outputs, list | tuple) else outputs
        if self.plane is not None:
            only = only.unsqueeze(self.plane + 2)
        if self.head != "mask" and only[0, 0].numel() == 1:
            only = only.flatten(1)
        if only.shape[1] != self.count:
            problem = f"names {self.count} outputs, the network gives {only.shape[1]}"
            raise FormatError(problem, self.where, "Name each channel of its output in channel_def")
        if only.shape[2:] != (images.shape[2:] if self.head == "mask" else ()):
            problem = f"its network takes no windows of {tuple(images.shape[2:])}: it gives {tuple(only.shape[2:])}"
            raise FormatError(problem, self.where, "Write a roi_size that its strides divide")
        return {self.head: only[:, list(self.order)] if self.order else only}
