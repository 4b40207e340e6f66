"""What answers at a node, beside products that a table names."""

from __future__ import annotations

import json

import pandas as pd
import pytest

import hilum
from hilum.errors import DatasetError, UsageError
from hilum.service import configuration, node_folder
from service.databases import with_tables
from service.thresholds import threshold_model

COLUMNS = [
    "model",
    "version",
    "intended_use",
    "origin",
    "acceptance",
    "last_change",
    "watches",
    "owner",
    "contract_end",
]


@pytest.fixture(scope="module")
def room(tmp_path_factory):
    """The folder of a node with one model, which it needs no acceptance for."""
    folder = tmp_path_factory.mktemp("inventory")
    (folder / "node.toml").write_text('[[bound]]\nmetric = "ppv"\nlabel = "nodule"\nat_least = 0.6\n')
    model = threshold_model(folder / "model", 40.5)
    settings = configuration.read_settings(folder / "node.toml", (model,), folder / "node")
    (folder / "node").mkdir()
    with_tables(settings.database_url).close()
    node_folder.settings_file(folder / "node", "keeper").write_text(settings.model_dump_json(), encoding="utf-8")
    facts = [{"name": "threshold.onnx", "hash": "0123456789abcdef"}]
    (folder / "node" / node_folder.MODELS).write_text(json.dumps({"rows": facts}))
    return folder


def test_each_model_of_the_settings_is_a_row_and_a_table_fills_what_no_record_states(room, tmp_path):
    table = pd.DataFrame(
        [
            {"Model": "threshold.onnx", "Owner": "radiology", "Intended use": "segments bright regions"},
            {"Model": "bone age", "Version": "3.1", "Contract end": "2027-06-30"},
        ]
    )
    table.to_csv(tmp_path / "others.csv", index=False)
    made = hilum.inventory(room / "node", also=tmp_path / "others.csv", out=tmp_path / "out")
    written = pd.read_csv(tmp_path / "out" / "inventory.csv", dtype=str, keep_default_na=False)
    assert list(written.columns) == COLUMNS
    own, other = written.to_dict("records")
    assert (own["model"], own["owner"], own["intended_use"]) == (
        "threshold.onnx",
        "radiology",
        "segments bright regions",
    )
    assert own["version"] and own["watches"] == "ppv of nodule at least 0.6" and own["last_change"] == ""
    assert (other["model"], other["version"], other["contract_end"]) == (
        "bone age",
        "3.1",
        "2027-06-30",
    )
    assert "bone age" in (tmp_path / "out" / "inventory.html").read_text()
    assert made.as_record()["rows"][0] == own
    [document] = hilum.document(tmp_path / "out", names="all").documents
    [measured, asked] = document.answered
    assert [one.value["model"] for one in measured.answers] == ["threshold.onnx", "bone age"]
    assert [one.state for one in asked.answers] == ["missing"]


@pytest.mark.parametrize(
    ("content", "words"),
    [
        ("model,price\na,3\n", "has the columns price"),
        ("version\n1\n", "does not name a model"),
        ("model\na\na\n", "names a model twice"),
    ],
)
def test_a_table_that_is_no_inventory_is_refused(room, tmp_path, content, words):
    (tmp_path / "others.csv").write_text(content)
    with pytest.raises(DatasetError, match=words):
        hilum.inventory(room / "node", also=tmp_path / "others.csv", out=tmp_path / "out")
    assert not (tmp_path / "out").exists()


def test_a_folder_without_a_node_is_refused(tmp_path):
    with pytest.raises(UsageError, match="holds no node"):
        hilum.inventory(tmp_path)
