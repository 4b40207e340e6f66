"""How messages reach sites. A carrier carries: what is learnt is decided by the server and the sites."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

from isocenter.errors import IsocenterError
from isocenter.federation import messages
from isocenter.federation.exchange_records import TO_SERVER, TO_SITE, ExchangeRecords
from isocenter.federation.messages import SiteMessage


@dataclass(frozen=True, eq=False)
class Answer:
    """What a site did with a message: its own, or why there is none, after so many s."""

    message: SiteMessage | None
    error: IsocenterError | None = None
    seconds: float = 0.0

    @property
    def facts(self) -> Mapping[str, Any]:
        """Those of its message; none without one."""
        return {} if self.message is None else self.message.facts


class Party(Protocol):
    """Somebody who answers messages."""

    def answer(self, message: SiteMessage) -> SiteMessage:
        """The answer; IsocenterError where there is none."""


class Carrier(Protocol):
    """A way of messages to sites and back."""

    @property
    def sites(self) -> Sequence[str]:
        """The names of the sites that can be reached, sorted."""

    @property
    def takes_turns(self) -> bool:
        """Whether sites compute one after the other, and share the minutes."""

    def ask(self, asked: Mapping[str, SiteMessage], number: int, records: ExchangeRecords) -> Mapping[str, Answer]:
        """The answer of each site that is asked, or why it has none; number: of the round."""


@dataclass(frozen=True, eq=False)
class LocalCarrier:
    """Sites of one process, which take turns. Messages become bytes and messages again: what arrives would travel."""

    parties: Mapping[str, Party]
    takes_turns: bool = field(default=True)

    @property
    def sites(self) -> Sequence[str]:
        """The names of the sites, sorted."""
        return sorted(self.parties)

    def ask(self, asked: Mapping[str, SiteMessage], number: int, records: ExchangeRecords) -> Mapping[str, Answer]:
        """One site after the other, by name."""
        return {site: self._ask_one(site, asked[site], number, records) for site in sorted(asked)}

    def _ask_one(self, site: str, message: SiteMessage, number: int, records: ExchangeRecords) -> Answer:
        began = time.monotonic()
        try:
            sent = message.encoded
            records.note_message(number, site, TO_SITE, message.kind, sent, time.monotonic() - began)
            returned = self.parties[site].answer(messages.decode_message(sent, "server"))
            done = time.monotonic()
            encoded = returned.encoded
            records.note_message(number, site, TO_SERVER, message.kind, encoded, time.monotonic() - done)
            return Answer(messages.decode_message(encoded, site), seconds=done - began)
        except IsocenterError as error:
            return Answer(None, error, time.monotonic() - began)
