"""The parts of `ensemble`: members, their agreement, weights, plan and report."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.verbs.ensembling.members import Member, as_one, by_content, member, parts_of_all, same_data
    from isocenter.verbs.ensembling.plan import SPLIT_BECAUSE, plan_of
    from isocenter.verbs.ensembling.report import members_section
    from isocenter.verbs.ensembling.weights import EQUAL, FITTED, Joined, tuned_task, weights_of

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
