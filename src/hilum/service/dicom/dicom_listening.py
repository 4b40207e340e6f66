"""Associations: the listener, its settings, the peers that may open them, and their events as lines of the journal."""

from __future__ import annotations

import socket
import ssl
import time
import uuid
from dataclasses import dataclass
from functools import cached_property
from ipaddress import ip_address
from pathlib import Path

from hilum.errors import UsageError
from hilum.service import configuration, default_ports
from hilum.service.dicom import messages
from hilum.service.objects.journal import Happened
from hilum.service.objects.object_store import ObjectStore, Sync


@dataclass(frozen=True)
class OutgoingTls:
    """TLS of associations that we open: who signs what the peer shows, and what we show it, if anything."""

    authorities: Path
    certificate: Path | None = None
    key: Path | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """The context of one association. Raises UsageError for files that are no certificates."""
        try:
            context = ssl.create_default_context(cafile=self.authorities)
            if self.certificate is not None:
                context.load_cert_chain(self.certificate, self.key)
        except OSError as error:
            remedy = "Give authorities, certificate and key as PEM files"
            raise UsageError(f"no TLS ({error.strerror or error})", str(self.authorities), remedy) from error
        return context


@dataclass(frozen=True)
class DicomPeer:
    """Another system that speaks DICOM.

    may:     what it may ask of us, of "store", "commit" and "order"
    commits: whether we ask it to commit, so that it reports to us
    tls:     of the associations that we open; None for plain ones
    """

    name: str
    ae_title: str
    host: str
    port: int
    may: frozenset[str] = frozenset()
    commits: bool = False
    tls: OutgoingTls | None = None

    @property
    def place(self) -> str:
        """Who and where it is, as errors name it."""
        return f"{self.name} ({self.ae_title} at {self.host}:{self.port})"


@dataclass(frozen=True)
class TlsPort:
    """A second port, under TLS. clients: the authorities that sign what peers show; without them nobody is asked."""

    port: int
    certificate: Path
    key: Path
    clients: Path | None = None

    @property
    def context(self) -> ssl.SSLContext:
        """The context for whoever connects. Raises UsageError for files that are no certificates."""
        return server_context(self.certificate, self.key, self.clients)


@dataclass(frozen=True)
class ListenerSettings:
    """The place where one receiver listens, and what an association may take.

    max_associations: of this process
    idle_s:           s for one PDU to come
    min_free_gb:      of the disk, below which nothing more is taken
    """

    ae_title: str = "HILUM"
    host: str = "127.0.0.1"
    port: int = default_ports.DICOM
    peers: tuple[DicomPeer, ...] = ()
    max_associations: int = 32
    max_object_mb: int = 4096
    idle_s: float = 60.0
    sync: Sync = "association"
    min_free_gb: float = 5.0
    tls: TlsPort | None = None

    @cached_property
    def is_local(self) -> bool:
        """Whether only this machine can reach it: then any title may store and order."""
        addresses_here = resolve_addresses(self.host)
        return bool(addresses_here) and all(ip_address(address).is_loopback for address in addresses_here)

    def permits(self, calling: str, address: str) -> frozenset[str]:
        """Rights of a caller; where others can reach us, title and address have to be listed."""
        mapped = getattr(ip_address(address), "ipv4_mapped", None)  # as a socket for IPv6 names who comes by IPv4
        address = str(mapped or address)
        listed = [peer for peer in self.peers if peer.ae_title == calling and address in resolve_addresses(peer.host)]
        reports = {"report" for peer in listed if peer.commits}
        return frozenset({"store", "order"} if self.is_local else ()).union(reports, *(peer.may for peer in listed))


def server_context(certificate: Path, key: Path, clients: Path | None = None) -> ssl.SSLContext:
    """TLS of connections that others open; clients: who signs what they show. Raises UsageError as `TlsPort`."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    try:
        context.load_cert_chain(certificate, key)
        if clients is not None:
            context.load_verify_locations(clients)
            context.verify_mode = ssl.CERT_REQUIRED
    except OSError as error:
        remedy = "Give a certificate and its key, and the authorities of clients, if any, as PEM files"
        raise UsageError(f"no TLS ({error.strerror or error})", str(certificate), remedy) from error
    return context


def resolve_addresses(host: str) -> set[str]:
    """The addresses of a name; none for one that nobody knows."""
    try:
        return {str(entry[4][0]) for entry in socket.getaddrinfo(host, None)}
    except socket.gaierror:
        return set()


REASONS = {
    messages.CALLED_UNKNOWN: "the called title is not that of the node",
    messages.CALLING_UNKNOWN: "no peer of this title and address is listed",
    messages.CONTEXT_UNKNOWN: "the application context is not that of DICOM",
    messages.CONGESTION: "too many associations, or a full disk",
}
FOR_WANT_OF_A_RIGHT = (messages.CALLED_UNKNOWN, messages.CALLING_UNKNOWN)


class AssociationEvents:
    """Requests and refusals of an association. Its methods raise ResourceError where nothing can be written."""

    def __init__(
        self, connection: messages.Connection, request: messages.AssociationRequest, store: ObjectStore
    ) -> None:
        self.connection, self.request, self.store = connection, request, store
        self._refused = set[str]()

    def record_opening(self, because: tuple[int, int, int] | None) -> None:
        """Record that it was accepted, or rejected with result, source and reason."""
        outcome = "success" if because is None else "refused" if because in FOR_WANT_OF_A_RIGHT else "failure"
        self._note("association", self.request.called, outcome, "" if because is None else REASONS[because])

    def record_refusal(self, what: str) -> None:
        """Record that it asked for what its peer may not do; a peer that repeats it is no further event."""
        if what not in self._refused:
            self._note("refusal", what, "refused", "the peer's `may` does not list it")
            self._refused.add(what)

    def _note(self, action: str, thing: str, outcome: str, reason: str) -> None:
        self.store.note(
            Happened(
                uuid.uuid4().hex,
                action,
                thing,
                self.request.calling,
                self.connection.address,
                time.time(),
                outcome,
                reason,
            )
        )


def listener_settings(node_settings: configuration.NodeSettings) -> ListenerSettings:
    """The settings that a receiver needs."""
    dicom = node_settings.dicom
    tls = None if dicom.tls is None else TlsPort(**dicom.tls.model_dump())
    return ListenerSettings(
        dicom.ae_title,
        dicom.host,
        dicom.port,
        tuple(peer_of_settings(one) for one in node_settings.peers),
        max(1, dicom.max_associations // dicom.receivers),
        dicom.max_object_mb,
        dicom.idle_s,
        dicom.sync,
        node_settings.node.min_free_gb,
        tls,
    )


def peer_of_settings(peer: configuration.PeerSection) -> DicomPeer:
    """A peer of the settings, as associations take it. Raises UsageError for TLS by files that are no certificates."""
    tls = None if peer.tls is None else OutgoingTls(**peer.tls.model_dump())
    if tls is not None:
        _ = tls.context  # refused before anything waits to be sent
    return DicomPeer(peer.name, peer.ae_title, peer.host, peer.port, frozenset(peer.may), peer.commit, tls)
