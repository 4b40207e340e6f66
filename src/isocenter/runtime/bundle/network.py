"""The network as MONAI's tools want it: one tensor in, one tensor out."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor, nn


class OneTensor(nn.Module):
    """(batch, channels, *patch) to the outputs of one head, (batch, outputs, *patch) or (batch, outputs).

    networks: of one model, or of the folds of one. Several give the logarithm of the mean of their probabilities,
              which says the same as the mean does
    """

    def __init__(self, networks: Sequence[nn.Module], head: str) -> None:
        super().__init__()
        self.networks = nn.ModuleList(networks)
        self.head = head

    def forward(self, images: Tensor) -> Tensor:
        outputs = [network(images)[self.head] for network in self.networks]
        if len(outputs) == 1:
            return outputs[0]
        each = torch.stack([one.float().log_softmax(dim=1) for one in outputs])
        return each.logsumexp(dim=0) - torch.log(torch.tensor(float(len(outputs))))
