"""Isocenter: one tool that carries a medical-imaging model through its whole life.

Names are resolved when they are first used, so that `import isocenter` loads neither torch nor a file format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

__version__ = "0.1.0"

if TYPE_CHECKING:
    from isocenter.errors import IsocenterError as IsocenterError
    from isocenter.files.file_formats import read as read
    from isocenter.files.file_formats import write as write
    from isocenter.files.transform_file import read_transform as read_transform
    from isocenter.files.transform_file import write_transform as write_transform
    from isocenter.runtime.model_files import load as load
    from isocenter.transforms.operators.operator_kinds import operator as operator
    from isocenter.verbs.accept import accept as accept
    from isocenter.verbs.adopt import adopt as adopt
    from isocenter.verbs.audit import export_audit as export_audit
    from isocenter.verbs.audit import verify_audit as verify_audit
    from isocenter.verbs.backup import backup as backup
    from isocenter.verbs.before_after import study_before_after as study_before_after
    from isocenter.verbs.cache import describe_cache as describe_cache
    from isocenter.verbs.calibrate import calibrate as calibrate
    from isocenter.verbs.change import check_change as check_change
    from isocenter.verbs.change import propose_change as propose_change
    from isocenter.verbs.check import check as check
    from isocenter.verbs.compare import compare as compare
    from isocenter.verbs.compress import compress as compress
    from isocenter.verbs.convert import convert as convert
    from isocenter.verbs.dataset import dataset as dataset
    from isocenter.verbs.deidentify import deidentify as deidentify
    from isocenter.verbs.demo import demo as demo
    from isocenter.verbs.deploy import change_status as change_status
    from isocenter.verbs.deploy import promote_change as promote_change
    from isocenter.verbs.deploy import roll_back_change as roll_back_change
    from isocenter.verbs.deploy import shadow_change as shadow_change
    from isocenter.verbs.deploy import split_change as split_change
    from isocenter.verbs.document import document as document
    from isocenter.verbs.document import trace_requirements as trace_requirements
    from isocenter.verbs.document import verify_documents as verify_documents
    from isocenter.verbs.embed import embed as embed
    from isocenter.verbs.enhance import enhance as enhance
    from isocenter.verbs.ensemble import ensemble as ensemble
    from isocenter.verbs.evaluate import evaluate as evaluate
    from isocenter.verbs.explain import explain as explain
    from isocenter.verbs.federate import federate as federate
    from isocenter.verbs.federation import join_federation as join_federation
    from isocenter.verbs.federation import provision_federation as provision_federation
    from isocenter.verbs.federation import serve_federation as serve_federation
    from isocenter.verbs.feedback import feedback as feedback
    from isocenter.verbs.inventory import inventory as inventory
    from isocenter.verbs.labelling import import_labels as import_labels
    from isocenter.verbs.labelling import next_labels as next_labels
    from isocenter.verbs.mcp import mcp as mcp
    from isocenter.verbs.monitor import monitor as monitor
    from isocenter.verbs.networks import describe_networks as describe_networks
    from isocenter.verbs.networks import describe_weights as describe_weights
    from isocenter.verbs.networks import list_networks as list_networks
    from isocenter.verbs.package import package as package
    from isocenter.verbs.plan import plan as plan
    from isocenter.verbs.predict import predict as predict
    from isocenter.verbs.pretrain import pretrain as pretrain
    from isocenter.verbs.reconstruct import reconstruct as reconstruct
    from isocenter.verbs.register import register as register
    from isocenter.verbs.registering.frames import register_frames as register_frames
    from isocenter.verbs.restore import restore as restore
    from isocenter.verbs.route import route as route
    from isocenter.verbs.serve import serve as serve
    from isocenter.verbs.studio import studio as studio
    from isocenter.verbs.study import study_size as study_size
    from isocenter.verbs.synthesise import synthesise as synthesise
    from isocenter.verbs.train import train as train
    from isocenter.verbs.trial import study_analyse as study_analyse
    from isocenter.verbs.trial import study_assign as study_assign
    from isocenter.verbs.trial import study_lock as study_lock
    from isocenter.verbs.trial import study_plan as study_plan
    from isocenter.verbs.trial import study_randomise as study_randomise
    from isocenter.verbs.view import view as view

lazy_index(__name__)
