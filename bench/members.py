"""Builds our families and writes what `hilum networks` says of them, `src/hilum/networks/members.json`.

    python bench/members.py

For when a family has come or has changed its size: `tests/networks/test_catalogue.py` says when.
"""

from __future__ import annotations

import json
from dataclasses import asdict

from hilum.networks import factory
from hilum.networks.member_catalogue import LISTED

if __name__ == "__main__":
    rows = (json.dumps(asdict(one), ensure_ascii=False) for one in factory.family_members(factory.own_families()))
    LISTED.write_text("[\n" + ",\n".join(rows) + "\n]\n", encoding="utf-8")
