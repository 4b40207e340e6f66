"""The model as one object: preprocessing, network and decoding, with bounded memory, on any device."""

from isocenter.runtime.allocation import kept_memory
from isocenter.runtime.archive import opened, write_zip
from isocenter.runtime.backends import refuse_unknown
from isocenter.runtime.before import numbered
from isocenter.runtime.by_frame import over_time
from isocenter.runtime.cascade import Cascaded, careful
from isocenter.runtime.certificate import Certificate, read_certificate
from isocenter.runtime.certify import certify
from isocenter.runtime.cluster import Cluster
from isocenter.runtime.context import Category, Column, Context, Monitored, Number, Presence, with_context
from isocenter.runtime.device import available_memory, bf16_pays, choose_device, environment, peak_memory, use_threads
from isocenter.runtime.ensemble import MEMBERS, together, write_members
from isocenter.runtime.expected import Expected, expected_memory, fitting_memory
from isocenter.runtime.foreign.found import is_foreign, load_foreign
from isocenter.runtime.foreign.nnunet_postprocessing import read_postprocessing
from isocenter.runtime.measurement import measurements
from isocenter.runtime.members import Averaged
from isocenter.runtime.model import Inference, Model, build_module
from isocenter.runtime.package import Evidence, write_package
from isocenter.runtime.packaged import mean_of
from isocenter.runtime.preprocessing import Preprocessing
from isocenter.runtime.readme import RUN_COMMAND
from isocenter.runtime.record import digest, read_json, read_tensors, seal, verify, write_json, write_tensors
from isocenter.runtime.shrinking import Shrinking, shrinking
from isocenter.runtime.spread import Spread, in_threads, in_workers, local, outcome_of
from isocenter.runtime.stored import BEFORE, checkpoints_of, load, save
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.trace import Trace
from isocenter.runtime.turns import placed
from isocenter.runtime.windows import Network, slide

__all__ = [
    "BEFORE",
    "MEMBERS",
    "RUN_COMMAND",
    "Averaged",
    "Cascaded",
    "Category",
    "Certificate",
    "Cluster",
    "Column",
    "Context",
    "Evidence",
    "Expected",
    "Inference",
    "Model",
    "Monitored",
    "Network",
    "Number",
    "Preprocessing",
    "Presence",
    "Shrinking",
    "Spread",
    "TorchNetwork",
    "Trace",
    "available_memory",
    "bf16_pays",
    "build_module",
    "careful",
    "certify",
    "checkpoints_of",
    "choose_device",
    "digest",
    "environment",
    "expected_memory",
    "fitting_memory",
    "in_threads",
    "in_workers",
    "is_foreign",
    "kept_memory",
    "load",
    "load_foreign",
    "local",
    "mean_of",
    "measurements",
    "numbered",
    "opened",
    "outcome_of",
    "over_time",
    "peak_memory",
    "placed",
    "read_certificate",
    "read_json",
    "read_postprocessing",
    "read_tensors",
    "refuse_unknown",
    "save",
    "seal",
    "shrinking",
    "slide",
    "together",
    "use_threads",
    "verify",
    "with_context",
    "write_json",
    "write_members",
    "write_package",
    "write_tensors",
    "write_zip",
]
