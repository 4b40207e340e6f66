"""A DICOM node around models: receives studies, routes, predicts, and sends the answers; nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.courier import Couriers
    from isocenter.service.deploying import answering_package, refresh_packages, stored_package, write_gate
    from isocenter.service.dicom.listening import listening_of
    from isocenter.service.dicom.receiver import Receiver
    from isocenter.service.exchange.atna import atna_message
    from isocenter.service.exchange.covariates import check_covariates
    from isocenter.service.intake import start_intake
    from isocenter.service.keeper import Keeper
    from isocenter.service.monitoring.changes import change_rows, end_harmful
    from isocenter.service.monitoring.rounds import Rounds, alerts_as_rows, by_of, watched_versions
    from isocenter.service.objects.store import key_of
    from isocenter.service.reading.data_set import case_name, of_one_source, opinions, write_data_set
    from isocenter.service.reading.labels import AnsweredCases, ImportedLabels, answered_cases, import_outcomes
    from isocenter.service.records.accounts import Accounts
    from isocenter.service.records.actor import ANYONE, Actor
    from isocenter.service.records.audit import canonical, record_settings, sealed_events, unsealed_count, verified
    from isocenter.service.records.database import Database, node_database, only_keeper, opened
    from isocenter.service.records.deployments import ask_for_change, end_change, models_of, roll_back
    from isocenter.service.records.index import Index
    from isocenter.service.records.workitems import Workitems
    from isocenter.service.routing.facts import ModelFacts, SeriesFacts, facts_of
    from isocenter.service.routing.rules import Routed, StudyAnswers, rules_of, study_answers, study_routing
    from isocenter.service.settings import Rule, Settings, read_settings
    from isocenter.service.stored import node_settings, stored_models
    from isocenter.service.supervisor import Node, prepared
    from isocenter.service.threads import Sealing
    from isocenter.service.web.server import run_web
    from isocenter.service.work.inference import serve_questions
    from isocenter.service.work.warm_models import WarmModels
    from isocenter.service.work.worker import DRAIN_S, Worker

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
