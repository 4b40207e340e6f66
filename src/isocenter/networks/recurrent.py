"""Recurrent networks over time: GRU and LSTM layers, forwards and backwards (Donahue et al., arXiv:1411.4389)."""

from __future__ import annotations

from typing import TYPE_CHECKING

import torch
from torch import Tensor, nn

if TYPE_CHECKING:
    from isocenter.networks.clips import Frames

# Gates of a cell; their weights are concatenated as in torch's own layers.
GATES = {"gru": 3, "lstm": 4}


class OneDirection(nn.Module):
    """(batch, frames, inside) to (batch, frames, width): the states of a recurrent layer in one direction of time.

    A missing frame leaves the state unchanged. The weights are those of torch's GRU (Cho et al., arXiv:1406.1078) and
    LSTM (Gers et al., doi:10.1162/089976600300015015), gates in their order. Not torch's own layers, because these
    take gaps only as packed sequences, which ONNX lacks.
    """

    def __init__(self, cell: str, inside: int, width: int, *, backwards: bool) -> None:
        super().__init__()
        self.cell, self.width, self.backwards = cell, width, backwards
        self.given, self.state = nn.Linear(inside, GATES[cell] * width), nn.Linear(width, GATES[cell] * width)
        for weight in self.parameters():
            nn.init.uniform_(weight, -(width**-0.5), width**-0.5)

    def forward(self, series: Tensor, there: Tensor) -> Tensor:
        """Return (batch, frames, width); there: (batch, frames), above 0 for a frame that exists."""
        given, count = self.given(series), series.shape[1]
        state = memory = torch.zeros_like(given[:, 0, : self.width])
        states: list[Tensor] = []
        for n in range(count - 1, -1, -1) if self.backwards else range(count):
            known = there[:, n : n + 1]
            new, remembered = self._step(given[:, n], state, memory)
            state, memory = torch.where(known, new, state), torch.where(known, remembered, memory)
            states.append(state)
        return torch.stack(states[::-1] if self.backwards else states, dim=1)

    def _step(self, given: Tensor, state: Tensor, memory: Tensor) -> tuple[Tensor, Tensor]:
        gates = given.chunk(GATES[self.cell], dim=1)
        own = self.state(state).chunk(GATES[self.cell], dim=1)
        if self.cell == "gru":
            reset, update = (torch.sigmoid(gates[n] + own[n]) for n in range(2))
            new = torch.tanh(gates[2] + reset * own[2])
            return (1 - update) * new + update * state, memory
        enter, forget, leave = (torch.sigmoid(gates[n] + own[n]) for n in (0, 1, 3))
        remembered = forget * memory + enter * torch.tanh(gates[2] + own[2])
        return leave * torch.tanh(remembered), remembered


class Directions(nn.Module):
    """(batch, frames, inside) to (batch, frames, directions * width): forwards, or in both directions."""

    def __init__(self, cell: str, inside: int, width: int, bidirectional: bool) -> None:
        super().__init__()
        directions = (False, True) if bidirectional else (False,)
        self.ways = nn.ModuleList(OneDirection(cell, inside, width, backwards=backwards) for backwards in directions)

    def forward(self, series: Tensor, there: Tensor) -> Tensor:
        """Return the states of both directions, joined."""
        return torch.cat([layer(series, there) for layer in self.ways], dim=2)


class Recurrent(nn.Module):
    """(batch, frames, features) to (batch, features): the mean over the frames of the last layer's states.

    Donahue et al. average the outputs of all frames (section 4), which is the same for a linear last layer.
    """

    def __init__(self, inside: int, cell: str, width: int, layers: int, bidirectional: bool) -> None:
        super().__init__()
        if cell not in GATES or width < 1 or layers < 1:
            problem = f"a recurrent network of {layers} layers of {width} {cell} cells"
            raise ValueError(f"{problem}: choose gru or lstm, and at least one layer of one cell")
        self.features = 2 * width if bidirectional else width
        self.layers = nn.ModuleList(
            Directions(cell, inside if n == 0 else self.features, width, bidirectional) for n in range(layers)
        )

    def forward(self, series: Tensor, frames: Frames) -> Tensor:
        """Return (batch, features)."""
        for layer in self.layers:
            series = layer(series, frames.there)
        return frames.mean(series)
