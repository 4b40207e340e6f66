"""Options of the verbs: one dataclass each, of which keywords, flags and their tables are made.

They import neither torch nor the verbs.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.options import command_index, doors, images, machine, models, node, records, shared_flags, training

lazy_index(__name__)
