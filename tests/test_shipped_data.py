"""The real data in the repository: where each file comes from is a fact that is checked."""

from __future__ import annotations

import csv
import importlib.util
import shutil
import tomllib
from pathlib import Path
from types import ModuleType

import pytest

ROOT = Path(__file__).parents[1]
SHIPPED = ROOT / "data"


@pytest.fixture(scope="module")
def maker() -> ModuleType:
    """The script beside the data, which chooses them and checks them."""
    found = importlib.util.spec_from_file_location("shipped_data", ROOT / "data" / "make.py")
    assert found is not None and found.loader is not None
    module = importlib.util.module_from_spec(found)
    found.loader.exec_module(module)
    return module


def test_every_file_has_a_row_every_hash_holds_and_every_set_has_its_licence(maker: ModuleType) -> None:
    assert maker.find_faults(SHIPPED) == []
    with (SHIPPED / "files.csv").open(newline="", encoding="utf-8") as file:
        rows = list(csv.DictReader(file))
    assert list(rows[0]) == ["path", "set", "sha256"]
    assert len({row["path"] for row in rows}) == len(rows)
    assert {row["set"] for row in rows} == set(maker.SETS)


def test_the_readme_has_a_row_for_each_set_with_source_and_licence(maker: ModuleType) -> None:
    lines = (SHIPPED / "README.md").read_text(encoding="utf-8").splitlines()
    cells = [[cell.strip() for cell in line.strip("|").split("|")] for line in lines if line.startswith("| `")]
    assert [row[0].strip("`") for row in cells] == list(maker.SETS)
    assert all(len(row) == 6 and all(row) for row in cells)


def test_a_licence_is_a_text_and_not_a_name(maker: ModuleType) -> None:
    for name in maker.SETS:
        text = (SHIPPED / name / "LICENSE").read_text(encoding="utf-8")
        assert len(text) > 1000, name


def test_a_file_without_a_row_a_row_without_a_file_and_a_changed_file_are_named(
    maker: ModuleType, tmp_path: Path
) -> None:
    folder = Path(shutil.copytree(SHIPPED / "documents", tmp_path / "documents")).parent
    with (SHIPPED / "files.csv").open(encoding="utf-8") as file:
        lines = [line for line in file if line.startswith(("path,", "documents/"))]
    (folder / "files.csv").write_text("".join([*lines, "documents/lost.xsd,documents,0\n"]), encoding="utf-8")
    (folder / "documents" / "more.xsd").write_text("more")
    with (folder / "documents" / "chai_applied_model_card_v0.2.xsd").open("a") as file:
        file.write("\n")
    (folder / "documents" / "LICENSE").unlink()
    assert maker.find_faults(folder) == [
        "documents/more.xsd has no row in files.csv",
        "documents/LICENSE has a row in files.csv, and is not there",
        "documents/chai_applied_model_card_v0.2.xsd is another file than files.csv says",
        "documents/lost.xsd has a row in files.csv, and is not there",
    ]


def test_each_dicom_object_and_volume_has_a_row_that_states_its_licence() -> None:
    for name, parts in (("dicom", ("series", "files", "broken")), ("nifti", (".",))):
        with (SHIPPED / name / "manifest.csv").open(newline="", encoding="utf-8") as file:
            licences = {row["name"]: row["licence"] for row in csv.DictReader(file)}
        items = {path.name for part in parts for path in (SHIPPED / name / part).iterdir()}
        references = {path for path in items if path.removesuffix(".geometry.json").removesuffix(".nii.gz") in licences}
        assert items - references - {"LICENSE", "manifest.csv"} <= set(licences)
        assert set(licences) <= items
        assert not [name for name, licence in licences.items() if "not stated" in licence or "GPL" in licence]


def test_neither_the_wheel_nor_the_source_archive_takes_the_data() -> None:
    targets = tomllib.loads((ROOT / "pyproject.toml").read_text())["tool"]["hatch"]["build"]["targets"]
    assert targets["wheel"]["packages"] == ["src/hilum"]
    assert not [path for path in targets["wheel"]["force-include"] if path.startswith("data")]
    assert "/data" in targets["sdist"]["exclude"]
