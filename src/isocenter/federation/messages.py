"""What sites and server send each other: facts as JSON and arrays by name, as the bytes of one safetensors file."""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from safetensors import SafetensorError
from safetensors import numpy as safetensors_numpy

from isocenter.errors import IntegrityError
from isocenter.runtime import record_files

Arrays = Mapping[str, np.ndarray]
# In the header of a safetensors file: what is no array. Its length stands in the first bytes.
METADATA, MESSAGE, LENGTH = "__metadata__", "message", 8
# A header beyond this is none of ours.
LONGEST_HEADER = 1 << 27


@dataclass(frozen=True, eq=False)
class SiteMessage:
    """One message; kind: which stage of the federation it is of."""

    kind: str
    facts: Mapping[str, Any] = field(default_factory=dict)
    arrays: Arrays = field(default_factory=dict)

    @property
    def encoded(self) -> bytes:
        """The bytes that travel: nothing in them can run code."""
        text = json.dumps({"kind": self.kind, "facts": record_files.as_json(self.facts)}, allow_nan=False)
        whole = {name: np.ascontiguousarray(one) for name, one in self.arrays.items()}
        return bytes(safetensors_numpy.save(whole, metadata={MESSAGE: text}))


def decode_message(encoded: bytes, where: str) -> SiteMessage:
    """The message in these bytes, of which nothing is believed; IntegrityError where there is none."""
    try:
        length = int.from_bytes(encoded[:LENGTH], "little")
        if not 0 < length <= min(LONGEST_HEADER, len(encoded) - LENGTH):
            raise ValueError("its header is cut short")
        header = json.loads(encoded[LENGTH : LENGTH + length])
        content = json.loads(header[METADATA][MESSAGE])
        arrays = safetensors_numpy.load(encoded)
        kind, facts = content["kind"], content["facts"]
        if not isinstance(kind, str) or not isinstance(facts, dict):
            raise ValueError("it names no stage")
        return SiteMessage(kind, facts, arrays)
    except (ValueError, KeyError, TypeError, SafetensorError) as error:
        raise IntegrityError(f"sent what is no message of a federation ({error})", where, "Ask who sends there") from (
            error
        )
