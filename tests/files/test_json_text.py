"""JSON from strangers is bounded in depth and size."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from hilum.files.storage import structured_text
from hilum.files.storage.structured_text import DEEPEST

values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(), inner, max_size=3),
    max_leaves=20,
)


@given(values)
def test_what_is_shallow_is_read_as_the_library_reads_it(value):
    assert structured_text.parse_json(json.dumps(value)) == value


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16", "utf-16-le", "utf-32"])
def test_a_byte_order_mark_is_no_part_of_a_value_whatever_the_encoding(tmp_path: Path, encoding: str) -> None:
    content = json.dumps({"größe": [1, 2]}, ensure_ascii=False)
    path = tmp_path / "record.json"
    path.write_bytes(content.encode(encoding))
    assert structured_text.load_json(path) == structured_text.parse_json(f"\ufeff{content}") == {"größe": [1, 2]}


@pytest.mark.parametrize("inner", ["{}[]{}", '{}{{"a": 1}}{}'])
@pytest.mark.parametrize(("opening", "closing"), [("[", "]"), ('{"a":', "}"), ('[1, {"a": [', "]}]")])
def test_nesting_has_an_end(inner: str, opening: str, closing: str) -> None:
    levels = opening.count("[") + opening.count("{")
    fitting = (DEEPEST - 1) // levels
    structured_text.parse_json(inner.format(opening * fitting, closing * fitting))
    for times in (fitting + 1, 500, 200_000):
        with pytest.raises(ValueError, match="nested deeper than 20 levels"):
            structured_text.parse_json(inner.format(opening * times, closing * times))


def test_a_file_larger_than_any_record_is_not_opened(tmp_path: Path) -> None:
    path = tmp_path / "record.json"
    path.write_text("[1, 2]")
    assert structured_text.load_json(path) == [1, 2]
    with pytest.raises(ValueError, match="larger than any record"):
        structured_text.load_json(path, largest=5)
