"""A DICOM node around models: receives studies, routes, predicts, and sends the answers; nothing is lost."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.service import (
        acceptances,
        configuration,
        default_ports,
        deploying,
        exchange,
        model_facts,
        monitoring,
        monitoring_rounds,
        node_backup,
        node_folder,
        node_record,
        objects,
        reading,
        records,
        routing,
        supervisor,
        technical_checks,
        work,
    )

lazy_index(__name__)
