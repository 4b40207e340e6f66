"""The model as one object: preprocessing, network and decoding, with bounded memory, on any device."""

from isocenter.runtime.device import bf16_pays, choose_device, environment, use_threads
from isocenter.runtime.model import Inference, Model, TorchNetwork, build_module, load, save
from isocenter.runtime.preprocessing import Preprocessing, Trace
from isocenter.runtime.record import digest, read_json, read_tensors, seal, verify, write_json, write_tensors
from isocenter.runtime.windows import Network, slide

__all__ = [
    "Inference",
    "Model",
    "Network",
    "Preprocessing",
    "TorchNetwork",
    "Trace",
    "bf16_pays",
    "build_module",
    "choose_device",
    "digest",
    "environment",
    "load",
    "read_json",
    "read_tensors",
    "save",
    "seal",
    "slide",
    "use_threads",
    "verify",
    "write_json",
    "write_tensors",
]
