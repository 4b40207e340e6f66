"""The list of an allocation under a key, so that nobody sees a later arm."""

from __future__ import annotations

import json
import os
import re

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from hilum.errors import IntegrityError, UsageError
from hilum.files.storage import structured_text
from hilum.studies.randomisation import Allocation

KEY = "HILUM_ALLOCATION_KEY"
NONCE_BYTES = 12  # NIST SP 800-38D, 8.2
CONTEXT = b"hilum allocation 1"


def allocation_key() -> AESGCM:
    """The key of the environment. Raises UsageError for none, or one that is no key."""
    text = os.environ.get(KEY, "")
    if not re.fullmatch(r"[0-9a-fA-F]{64}", text):
        problem = "holds no key of 64 hexadecimal digits" if text else "is not set, and the list is encrypted"
        remedy = "Set the key that it was randomised with; a new study gets one by `openssl rand -hex 32`"
        raise UsageError(problem, KEY, remedy)
    return AESGCM(bytes.fromhex(text))


def encrypt_allocation(allocation: Allocation, key: AESGCM) -> bytes:
    """AES-GCM with a nonce of its own: NIST SP 800-38D."""
    nonce = os.urandom(NONCE_BYTES)
    record = {"lists": allocation.lists, "used": allocation.used, "log": allocation.log}
    return nonce + key.encrypt(nonce, json.dumps(record).encode(), CONTEXT)


def decrypt_allocation(content: bytes, key: AESGCM, where: str) -> Allocation:
    """The allocation; IntegrityError where the key is another one, or a byte was changed."""
    try:
        record = structured_text.parse_json(key.decrypt(content[:NONCE_BYTES], content[NONCE_BYTES:], CONTEXT).decode())
    except (InvalidTag, ValueError) as error:
        problem = f"cannot be opened: {KEY} is not the key of this list, or the file was changed"
        raise IntegrityError(
            problem, where, "Set the key that it was randomised with; without it nobody can"
        ) from error
    return Allocation(record["lists"], record["used"], record["log"])
