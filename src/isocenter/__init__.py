"""Isocenter: one tool that carries a medical-imaging model through its whole life.

Names are resolved when they are first used, so that `import isocenter` loads neither torch nor a file format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

__version__ = "0.1.0"

__all__ = [
    "IsocenterError",
    "__version__",
    "accept",
    "adopt",
    "backup",
    "calibrate",
    "change_status",
    "check",
    "check_change",
    "compare",
    "compress",
    "convert",
    "dataset",
    "deidentify",
    "demo",
    "describe_cache",
    "describe_networks",
    "describe_weights",
    "document",
    "embed",
    "enhance",
    "ensemble",
    "evaluate",
    "explain",
    "export_audit",
    "federate",
    "feedback",
    "import_labels",
    "inventory",
    "join_federation",
    "list_networks",
    "load",
    "mcp",
    "monitor",
    "next_labels",
    "operator",
    "package",
    "plan",
    "predict",
    "pretrain",
    "promote_change",
    "propose_change",
    "provision_federation",
    "read",
    "read_transform",
    "reconstruct",
    "register",
    "register_frames",
    "restore",
    "roll_back_change",
    "route",
    "serve",
    "serve_federation",
    "shadow_change",
    "split_change",
    "studio",
    "study_analyse",
    "study_assign",
    "study_before_after",
    "study_lock",
    "study_plan",
    "study_randomise",
    "study_size",
    "synthesise",
    "trace_requirements",
    "train",
    "verify_audit",
    "verify_documents",
    "view",
    "write",
    "write_transform",
]

if TYPE_CHECKING:
    from isocenter.errors import IsocenterError
    from isocenter.files.file_formats import read, write
    from isocenter.files.transform_file import read_transform, write_transform
    from isocenter.runtime.model_files import load
    from isocenter.transforms.operators.operator_kinds import operator
    from isocenter.verbs.accept import accept
    from isocenter.verbs.adopt import adopt
    from isocenter.verbs.audit import export_audit, verify_audit
    from isocenter.verbs.backup import backup
    from isocenter.verbs.before_after import study_before_after
    from isocenter.verbs.cache import describe_cache
    from isocenter.verbs.calibrate import calibrate
    from isocenter.verbs.change import check_change, propose_change
    from isocenter.verbs.check import check
    from isocenter.verbs.compare import compare
    from isocenter.verbs.compress import compress
    from isocenter.verbs.convert import convert
    from isocenter.verbs.dataset import dataset
    from isocenter.verbs.deidentify import deidentify
    from isocenter.verbs.demo import demo
    from isocenter.verbs.deploy import change_status, promote_change, roll_back_change, shadow_change, split_change
    from isocenter.verbs.document import document, trace_requirements, verify_documents
    from isocenter.verbs.embed import embed
    from isocenter.verbs.enhance import enhance
    from isocenter.verbs.ensemble import ensemble
    from isocenter.verbs.evaluate import evaluate
    from isocenter.verbs.explain import explain
    from isocenter.verbs.federate import federate
    from isocenter.verbs.federation import join_federation, provision_federation, serve_federation
    from isocenter.verbs.feedback import feedback
    from isocenter.verbs.inventory import inventory
    from isocenter.verbs.labelling import import_labels, next_labels
    from isocenter.verbs.mcp import mcp
    from isocenter.verbs.monitor import monitor
    from isocenter.verbs.networks import describe_networks, describe_weights, list_networks
    from isocenter.verbs.package import package
    from isocenter.verbs.plan import plan
    from isocenter.verbs.predict import predict
    from isocenter.verbs.pretrain import pretrain
    from isocenter.verbs.reconstruct import reconstruct
    from isocenter.verbs.register import register
    from isocenter.verbs.registering.frames import register_frames
    from isocenter.verbs.restore import restore
    from isocenter.verbs.route import route
    from isocenter.verbs.serve import serve
    from isocenter.verbs.studio import studio
    from isocenter.verbs.study import study_size
    from isocenter.verbs.synthesise import synthesise
    from isocenter.verbs.train import train
    from isocenter.verbs.trial import study_analyse, study_assign, study_lock, study_plan, study_randomise
    from isocenter.verbs.view import view


if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
