"""The flow of participants as a diagram: from the allocation to the analysis."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

from isocenter.errors import counted
from isocenter.report import Figure, figures


def flow_of_arms(arms: Sequence[Mapping[str, Any]]) -> Figure:
    """The diagram, from the rows of arms in `flow.json` alone."""
    parts = []
    for row in arms:
        followed = f", per protocol: {row['per_protocol']}" if "per_protocol" in row else ""
        known = f"{row['arm']}: {row['participants']}, with outcome: {row['with_outcome']}"
        parts.append(f"{known}\nanalysed: {row['analysed']}{followed}")
    assigned = sum(row["assigned"] for row in arms)
    steps = [(f"Assigned: {counted(assigned, arms[0]['unit'])}", "")]
    caption = "Participants of each arm; every number stands in its record."
    return figures.flow_of_cases(steps, parts, "Flow of participants", caption=caption)
