"""Files sent one by one: none is held up by another, and a peer that keeps us waiting is not asked for the rest."""

from __future__ import annotations

from pathlib import Path

import pytest

from isocenter.service import delivering
from isocenter.service.delivering import sent_one_by_one
from isocenter.service.dicom.sending import PeerError, Sent
from isocenter.service.exchange.fhir_server import BusyError

PATHS = [Path(name) for name in "abc"]


def peer(**errors: PeerError):
    """A peer that takes all but these; and what it was asked for."""
    asked = list[str]()

    def send(path: Path) -> Sent:
        asked.append(path.name)
        if path.name in errors:
            raise errors[path.name]
        return Sent(path, "", 0)

    return send, asked


AWAY, BUSY = PeerError("is away", "peer", "Start it"), BusyError("is busy", "peer", "Wait")


def states(rows: list[Sent]) -> str:
    return "".join("+" if row.is_stored else "-" for row in rows)


def test_a_file_that_is_not_taken_holds_up_no_other():
    send, asked = peer(a=AWAY)
    assert states(sent_one_by_one(PATHS, send)) == "-++"
    assert asked == ["a", "b", "c"]


def test_a_peer_that_keeps_us_waiting_or_asks_for_time_is_not_asked_for_the_rest(monkeypatch):
    send, asked = peer(b=BUSY)
    assert (states(sent_one_by_one(PATHS, send, leaves=BusyError)), asked) == ("+--", ["a", "b"])
    monkeypatch.setattr(delivering, "SLOW_S", -1.0)
    send, asked = peer(b=AWAY)
    assert (states(sent_one_by_one(PATHS, send)), asked) == ("+--", ["a", "b"])


def test_a_peer_that_answers_nothing_is_away():
    send, asked = peer(a=AWAY, b=AWAY, c=AWAY)
    with pytest.raises(PeerError, match="is away"):
        sent_one_by_one(PATHS, send)
    assert asked == ["a", "b", "c"]
