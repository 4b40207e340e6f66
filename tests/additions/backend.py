"""A backend: torch in double precision, to see what rounding does."""

import torch

from hilum.runtime.package.backends.torch_eager import TorchEager


class InDouble:
    """(batch, channels, *spatial) float32 to {head: float32}, computed in float64."""

    def __init__(self, module, device):
        self.module, self.device = module.double(), device

    def __call__(self, batch, *context):
        arrays = (torch.from_numpy(array).to(self.device).double() for array in (batch, *context))
        with torch.inference_mode():
            outputs = self.module(*arrays)
        return {name: output.float().cpu().numpy() for name, output in outputs.items()}


BACKEND = TorchEager("double", computing=InDouble)
