"""A DICOM node around models: receives studies, routes, predicts, and sends the answers; nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.courier import Couriers
    from isocenter.service.dicom import Receiver
    from isocenter.service.intake import start_intake
    from isocenter.service.keeper import Keeper
    from isocenter.service.objects import key_of
    from isocenter.service.records import Index, only_keeper, opened
    from isocenter.service.routing import (
        ModelFacts,
        Routed,
        SeriesFacts,
        StudyAnswers,
        facts_of,
        rules_of,
        study_answers,
        study_routing,
    )
    from isocenter.service.settings import Rule, Settings, read_settings
    from isocenter.service.speaking import listening_of
    from isocenter.service.supervisor import Node, prepared
    from isocenter.service.web import run_web
    from isocenter.service.work import DRAIN_S, WarmModels, Worker

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
