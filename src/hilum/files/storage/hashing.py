"""Hashes of files, cases and data sets, and the key that hides who patients are, so that no short number is guessed.

HMAC: RFC 2104. A plain hash of an identifier of seven digits is found by trying all of them, in seconds.
"""

from __future__ import annotations

import hashlib
import hmac
import json
import os
import re
import secrets
import uuid
from contextlib import suppress
from functools import lru_cache
from pathlib import Path

from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import cache, kept
from hilum.files.storage.kept import FileIdentity
from hilum.values import Case, Dataset

VARIABLE = "HILUM_PATIENT_KEY"
REMEDY = f"Set {VARIABLE} to a secret of your own"
KEY_BYTES = 32
# Letters of a pseudonym (64 bits), and of the key's id.
LETTERS, ID_LETTERS = 16, 12
PSEUDONYM = re.compile(rf"[0-9a-f]{{{LETTERS}}}")
# What stands where nobody knows, or shall know, who the patient is, so that equal words are no equal person.
NOBODY = frozenset(
    {"", "?", "-", "--", ".", "none", "n/a", "not available", "unknown", "unbekannt", "inconnu", "desconocido"}
    | {"anonymous", "anonym", "anon", "anonymised", "anonymized", "de-identified", "deidentified"}
    | {"removed", "redacted", "no name", "noname"}
)


def make_pseudonym(identity: str) -> str:
    """Stands for a person: the same for the same key, and without the key nobody can tell for whom.

    Raises UsageError where there is no key yet and none can be written, IntegrityError for a damaged one.
    """
    return hmac.digest(_key(), identity.encode(), hashlib.sha256).hex()[:LETTERS]


def pseudonym_of_number(number: str, issuer: str = "") -> str:
    """The pseudonym of a patient by a PatientID as tables write it, of the issuer that DICOM may name too."""
    return make_pseudonym(f"{issuer}\0{number.strip()}")


def is_nobody(word: str) -> bool:
    """Whether a patient's number or name stands for anybody; of a name as DICOM writes it, its parts by ^."""
    return word.replace("^", " ").strip().casefold() in NOBODY


def is_pseudonym(patient: str) -> bool:
    """Whether a patient's name looks as pseudonyms do."""
    return PSEUDONYM.fullmatch(patient) is not None


def patient_key_id() -> str:
    """An identifier of the key that makes pseudonyms here; a record may hold it, as it says nothing of the key."""
    return hmac.digest(_key(), b"hilum patient key", hashlib.sha256).hex()[:ID_LETTERS]


def has_patient_key() -> bool:
    """Whether there is a key here already, which is otherwise made at its first use."""
    return bool(os.environ.get(VARIABLE)) or key_file().is_file()


def key_file() -> Path:
    """The file with the key of this installation, in the user's configuration folder.

    Raises UsageError for a user without a home: a key in a temporary folder would be another one tomorrow.
    """
    folder = cache.user_configuration()
    if folder is None:
        problem = "this user has no home folder, so the key that hides who patients are cannot be kept"
        raise UsageError(problem, VARIABLE, REMEDY)
    return folder / "patient.key"


def is_own_key(key: bytes) -> bool:
    """Whether a key is the one that makes pseudonyms here; none is made for the question."""
    if setting := os.environ.get(VARIABLE):
        return setting.encode() == key or setting.casefold() == key.hex()
    folder = cache.user_configuration()
    return folder is not None and key_file().is_file() and _key() == key


def _key() -> bytes:
    """The key that the variable holds, else the installation's own, which is made at its first use."""
    setting = os.environ.get(VARIABLE)
    return setting.encode() if setting else _load_key(key_file())


@lru_cache
def _load_key(path: Path) -> bytes:
    try:
        if not path.is_file():
            _make_key(path)
        key = bytes.fromhex(path.read_text(encoding="ascii"))
    except OSError as error:
        problem = f"the key that hides who patients are cannot be kept there: {error.strerror}"
        raise UsageError(problem, str(path), REMEDY) from error
    except ValueError as error:
        raise _damage_error(path) from error
    if len(key) != KEY_BYTES:
        raise _damage_error(path)
    return key


def _make_key(path: Path) -> None:
    """Write a new key, for the owner's eyes alone; of several processes that do so at once one wins."""
    path.parent.mkdir(parents=True, exist_ok=True)
    draft = path.with_name(f".{path.name}.{uuid.uuid4().hex}")
    draft.touch(mode=0o600)
    draft.write_text(secrets.token_hex(KEY_BYTES), encoding="ascii")
    with suppress(FileExistsError):
        os.link(draft, path)
    draft.unlink()


def _damage_error(path: Path) -> IntegrityError:
    remedy = "Restore it from a copy, or delete it: pseudonyms of patients will then be others"
    return IntegrityError("is not a key of this installation", str(path), remedy)


BLOCK_BYTES = 1 << 20


def file_hash(path: Path) -> str:
    """SHA-256 of a file's contents; kept until the file changes, also for later commands that read data sets."""
    identity = FileIdentity.of(path)
    is_settled = identity.is_settled
    sha256 = known_hash(path, identity) or _read_hash(path)
    if is_settled:
        take_hash(path, identity, sha256)
    return sha256


def known_hash(path: Path, identity: FileIdentity) -> str | None:
    """Hash of a file that has not changed since it was read; None where it was not, or where that is to be verified."""
    verified = kept.current_caching().verified
    if (known := _HASHES.get((path, identity, verified))) is not None or verified:
        return known
    *stored, sha256 = (kept.kept_text(kept.file_key(path)) or " ").split(" ")
    return sha256 if stored == [str(number) for number in identity] else None


def take_hash(path: Path, identity: FileIdentity, sha256: str) -> None:
    """Keep a hash that was computed here or by another process."""
    key = path, identity, kept.current_caching().verified
    if key not in _HASHES:
        _HASHES[key] = sha256
        kept.keep_text(kept.file_key(path), " ".join(map(str, (*identity, sha256))))


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


# {(file, identity, which command trusts none of the hashes that were kept before): hash}
_HASHES: dict[tuple[Path, FileIdentity, str], str] = {}


def _read_hash(path: Path) -> str:
    total = hashlib.sha256()
    with path.open("rb") as file:
        while block := file.read(BLOCK_BYTES):
            total.update(block)
    return total.hexdigest()
