"""Hashes of files, cases and data sets: of their contents, not of names or places."""

from __future__ import annotations

import hashlib
import json
from functools import lru_cache
from pathlib import Path

from isocenter.values import Case, Dataset

BLOCK_BYTES = 1 << 20


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents; kept until the file's size or time changes."""
    status = path.stat()
    return _file_hash(path, status.st_size, status.st_mtime_ns)


def content_hash(case: Case) -> str:
    """SHA-256 over the contents of a case's files, its key within them, and the structures that it knows."""
    total = hashlib.sha256()
    for path in case.files:
        total.update(file_hash(path).encode())
    total.update(case.key.encode())
    if case.known is not None:
        total.update(json.dumps(sorted(case.known)).encode())
    return total.hexdigest()


def dataset_hash(dataset: Dataset) -> str:
    """SHA-256 over the contents of all cases, in whatever order they stand."""
    return hashlib.sha256("".join(sorted(content_hash(case) for case in dataset)).encode()).hexdigest()


@lru_cache(maxsize=100_000)
def _file_hash(path: Path, size: int, modified: int) -> str:
    del size, modified  # they are part of the key only
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()
