"""Sites that train one model together and keep their images: agreement, plan, rounds, aggregation, figures."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.federation import (
        aggregation,
        agreement,
        exchanges,
        federated_job,
        federated_run,
        methods,
        nvflare_carrier,
        parties,
        party_kits,
        pooled_figures,
        shared_cases,
        site,
        site_budgets,
        stand_ins,
    )

lazy_index(__name__)
