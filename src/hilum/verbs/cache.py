"""`cache`: what this machine keeps because it can be made again, and how it is emptied."""

from __future__ import annotations

import shutil
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path

from hilum import keywords
from hilum.errors import UsageError
from hilum.files.storage import cache
from hilum.lazy import pandas as pd
from hilum.options.training import CacheOptions
from hilum.report import InNotebook
from hilum.values.record_schema import RecordHead, RecordSchema
from hilum.values.table_cells import TableRow

# {part: what it holds}; what else lies in the folder, such as ledgers, cannot be made again and stays.
PARTS: Mapping[str, str] = {
    "examined": "what was found in files, so that they are looked at once",
    "prepared": "cases as networks get them",
    "taught": "answers of teachers",
    "imputed": "images that cases lack, made of others",
    "alignment": "transforms between the images of a case",
    "explanations": "tests of explanations",
    "compiled": "networks compiled for this machine",
    "tensorrt": "engines of TensorRT",
    "downloads": "public data of `demo`",
}
ALL = "all"


class CacheRecord(RecordHead):
    """The cache folder, and its parts that hold something."""

    folder: str
    rows: list[TableRow]


CACHE_SCHEMA = RecordSchema("hilum.cache", CacheRecord)


@dataclass(frozen=True)
class CacheContents(InNotebook):
    """The parts of the cache that hold something: part, what it holds, files and MiB."""

    folder: Path
    rows: tuple[TableRow, ...]

    @property
    def table(self) -> pd.DataFrame:
        """One row a part."""
        return pd.DataFrame(list(self.rows), columns=["part", "holds", "files", "mib"])

    def as_record(self) -> CacheRecord:
        """The record for `--json`."""
        return CACHE_SCHEMA.record_of(self)

    def __str__(self) -> str:
        lines = [f"{one['part']:13}{one['mib']:9.1f} MiB  {one['holds']}" for one in self.rows]
        return "\n".join([str(self.folder), *(lines or ["empty"])])


@keywords.takes(CacheOptions)
def describe_cache(options: CacheOptions) -> CacheContents:
    """What lies in the cache folder, after the parts named by `empty` were emptied.

    A training that is running reads its prepared cases: empty these when it is done.
    Raises UsageError for a part that does not exist.
    """
    folder = cache.cache_folder()
    for part in options.empty:
        if part not in (ALL, *PARTS):
            raise UsageError(f"there is no part {part!r}", "--empty", f"Choose {', '.join(PARTS)} or {ALL}")
    for part in PARTS if ALL in options.empty else options.empty:
        shutil.rmtree(folder / part, ignore_errors=True)
    sizes = {part: [one.stat().st_size for one in (folder / part).rglob("*") if one.is_file()] for part in PARTS}
    rows: Iterator[TableRow] = (
        {"part": part, "holds": PARTS[part], "files": len(own), "mib": sum(own) / 2**20} for part, own in sizes.items()
    )
    return CacheContents(folder, tuple(one for one in rows if one["files"]))
