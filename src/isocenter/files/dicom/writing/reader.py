"""The person who has corrected or verified a result, as its DICOM objects name them."""

from __future__ import annotations

import re
from dataclasses import dataclass

LONGEST = 64  # of a component group of a person's name, and of a long string: PS3.5 6.2


@dataclass(frozen=True)
class Reader:
    """A person by the name of their account, and the organisation for which they read."""

    name: str
    organisation: str

    @property
    def person_name(self) -> str:
        """The name as a family name: nobody knows which of its words is the given one. PS3.5 6.2.1"""
        plain = re.sub(r"[\\^=\x00-\x1f\x7f]+", " ", self.name).strip()
        return f"{plain[: LONGEST - 1]}^"
