"""Files sent to a peer one after the other, so that none waits longer because another was not taken."""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from pathlib import Path

from isocenter.service.dicom.sending import PeerError, Sent

# A try that failed after so long has waited for a peer in vain (s): the files after it would do the same.
SLOW_S = 2.0


def sent_one_by_one(
    paths: Sequence[Path], send: Callable[[Path], Sent], *, leaves: type[PeerError] | None = None
) -> list[Sent]:
    """One row for each file, in their order. send: gives a row, or raises PeerError for what is not about the file

    leaves: the error by which a peer asks to be left alone; as after a slow failure the rest is not tried, and fails
    Raises PeerError where the peer has answered no try.
    """
    rows, answered = list[Sent](), 0
    for place, path in enumerate(paths):
        began = time.monotonic()
        try:
            rows.append(send(path))
            answered += 1
        except PeerError as error:
            is_over = time.monotonic() - began > SLOW_S or (leaves is not None and isinstance(error, leaves))
            left = paths[place:] if is_over else [path]
            rows += [Sent(one, "", None, error.problem) for one in left]
            if len(rows) == len(paths) and not answered:
                raise
            if is_over:
                break
    return rows
