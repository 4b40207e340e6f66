"""The model as one object: preprocessing, network and decoding, with bounded memory, on any device."""

from isocenter.runtime.before import numbered
from isocenter.runtime.by_frame import over_time
from isocenter.runtime.cascade import Cascaded, careful
from isocenter.runtime.certificate.certify import certify
from isocenter.runtime.covariate_encoding import Category, Column, Context, Monitored, Number, Presence, with_context
from isocenter.runtime.device import available_memory, bf16_pays, choose_device, environment, peak_memory, use_threads
from isocenter.runtime.ensemble.members import MEMBERS, together, write_members
from isocenter.runtime.ensemble.weight_offload import placed
from isocenter.runtime.foreign.detect import is_foreign, load_foreign
from isocenter.runtime.foreign.nnunet_postprocessing import read_postprocessing
from isocenter.runtime.label_measurements import measurements
from isocenter.runtime.memory.allocator import kept_memory
from isocenter.runtime.memory.predicted import Expected, expected_memory, fitting_memory
from isocenter.runtime.model import Inference, Model, build_module
from isocenter.runtime.model_files import BEFORE, checkpoints_of, load, save
from isocenter.runtime.package.archive import opened, write_zip
from isocenter.runtime.package.backends import refuse_unknown
from isocenter.runtime.package.certificate import Certificate, read_certificate
from isocenter.runtime.package.contents import mean_of
from isocenter.runtime.package.readme import RUN_COMMAND
from isocenter.runtime.package.write import Evidence, write_package
from isocenter.runtime.parallel.dask_cluster import Cluster
from isocenter.runtime.parallel.map_cases import Spread, in_threads, in_workers, local, outcome_of
from isocenter.runtime.preprocessing.preprocessing import Preprocessing
from isocenter.runtime.preprocessing.trace import Trace
from isocenter.runtime.record_files import digest, read_json, read_tensors, seal, verify, write_json, write_tensors
from isocenter.runtime.smaller_batches import Shrinking, shrinking
from isocenter.runtime.torch_network import TorchNetwork
from isocenter.runtime.windows.averaging import Averaged
from isocenter.runtime.windows.slide import Network, slide

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
