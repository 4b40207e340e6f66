"""A family of networks: one convolution, and a linear layer for each vector head."""

from torch import nn

from hilum.networks.network_family import Family


class Tiny(nn.Module):
    """(batch, channels, *spatial) to {head: (batch, size of the head)}."""

    def __init__(self, channels, vectors, width=3):
        super().__init__()
        self.body = nn.Conv2d(channels, width, 3, padding=1)
        self.vectors = nn.ModuleDict({name: nn.Linear(width, size) for name, size in vectors.items()})

    def forward(self, images, context=None):
        pooled = self.body(images).relu().flatten(2).mean(dim=2)
        return {name: layer(pooled) for name, layer in self.vectors.items()}


def build(channels, spatial_dims, vectors, **size):
    return Tiny(channels, vectors, **size)


TINY = Family(build, answers=frozenset({"vector"}), without_onnx="nobody has tried it")
