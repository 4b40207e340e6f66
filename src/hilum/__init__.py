"""Hilum: one tool that carries a medical-imaging model through its whole life.

Names are resolved when they are first used, so that `import hilum` loads neither torch nor a file format.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

__version__ = "0.1.0"
# The day of the release; until there is one, of this line. A clock that shows an earlier day is wrong.
__date__ = "2026-11-30"

if TYPE_CHECKING:
    from hilum.errors import HilumError as HilumError
    from hilum.files.array_image import image as image
    from hilum.files.file_formats import read as read
    from hilum.files.file_formats import write as write
    from hilum.files.transform_file import read_transform as read_transform
    from hilum.files.transform_file import write_transform as write_transform
    from hilum.runtime.model_files import load as load
    from hilum.transforms.operators.operator_kinds import operator as operator
    from hilum.verbs.accept import accept as accept
    from hilum.verbs.adopt import adopt as adopt
    from hilum.verbs.audit import export_audit as export_audit
    from hilum.verbs.audit import verify_audit as verify_audit
    from hilum.verbs.backup import backup as backup
    from hilum.verbs.before_after import study_before_after as study_before_after
    from hilum.verbs.cache import describe_cache as describe_cache
    from hilum.verbs.calibrate import calibrate as calibrate
    from hilum.verbs.change import check_change as check_change
    from hilum.verbs.change import propose_change as propose_change
    from hilum.verbs.check import check as check
    from hilum.verbs.compare import compare as compare
    from hilum.verbs.compress import compress as compress
    from hilum.verbs.convert import convert as convert
    from hilum.verbs.dataset import dataset as dataset
    from hilum.verbs.deidentify import deidentify as deidentify
    from hilum.verbs.demo import demo as demo
    from hilum.verbs.deploy import change_status as change_status
    from hilum.verbs.deploy import promote_change as promote_change
    from hilum.verbs.deploy import roll_back_change as roll_back_change
    from hilum.verbs.deploy import shadow_change as shadow_change
    from hilum.verbs.deploy import split_change as split_change
    from hilum.verbs.doctor import doctor as doctor
    from hilum.verbs.document import document as document
    from hilum.verbs.document import trace_requirements as trace_requirements
    from hilum.verbs.document import verify_documents as verify_documents
    from hilum.verbs.embed import embed as embed
    from hilum.verbs.enhance import enhance as enhance
    from hilum.verbs.ensemble import ensemble as ensemble
    from hilum.verbs.evaluate import evaluate as evaluate
    from hilum.verbs.explain import explain as explain
    from hilum.verbs.federate import federate as federate
    from hilum.verbs.federation import join_federation as join_federation
    from hilum.verbs.federation import provision_federation as provision_federation
    from hilum.verbs.federation import serve_federation as serve_federation
    from hilum.verbs.feedback import feedback as feedback
    from hilum.verbs.info import info as info
    from hilum.verbs.inventory import inventory as inventory
    from hilum.verbs.labelling import import_labels as import_labels
    from hilum.verbs.labelling import next_labels as next_labels
    from hilum.verbs.mcp import mcp as mcp
    from hilum.verbs.monitor import monitor as monitor
    from hilum.verbs.networks import describe_networks as describe_networks
    from hilum.verbs.networks import describe_weights as describe_weights
    from hilum.verbs.networks import list_networks as list_networks
    from hilum.verbs.package import package as package
    from hilum.verbs.plan import plan as plan
    from hilum.verbs.predict import predict as predict
    from hilum.verbs.pretrain import pretrain as pretrain
    from hilum.verbs.reconstruct import reconstruct as reconstruct
    from hilum.verbs.register import register as register
    from hilum.verbs.registering.frames import register_frames as register_frames
    from hilum.verbs.restore import restore as restore
    from hilum.verbs.route import route as route
    from hilum.verbs.serve import serve as serve
    from hilum.verbs.studio import studio as studio
    from hilum.verbs.study import study_size as study_size
    from hilum.verbs.synthesise import synthesise as synthesise
    from hilum.verbs.train import train as train
    from hilum.verbs.trial import study_analyse as study_analyse
    from hilum.verbs.trial import study_assign as study_assign
    from hilum.verbs.trial import study_lock as study_lock
    from hilum.verbs.trial import study_plan as study_plan
    from hilum.verbs.trial import study_randomise as study_randomise
    from hilum.verbs.view import view as view

lazy_index(__name__)
