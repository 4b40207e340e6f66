"""The settings that receivers and senders need; without the records, which a receiver opens for workitems alone."""

from __future__ import annotations

from isocenter.service import settings
from isocenter.service.dicom.listening import Listening, Peer, Secured, Trusted


def listening_of(node_settings: settings.Settings) -> Listening:
    """The settings that a receiver needs."""
    dicom = node_settings.dicom
    tls = None if dicom.tls is None else Secured(**dicom.tls.model_dump())
    return Listening(
        dicom.ae_title,
        dicom.host,
        dicom.port,
        tuple(spoken_to(one) for one in node_settings.peers),
        max(1, dicom.max_associations // dicom.receivers),
        dicom.max_object_mb,
        dicom.idle_s,
        dicom.sync,
        node_settings.node.min_free_gb,
        tls,
    )


def spoken_to(peer: settings.Peer) -> Peer:
    """A peer of the settings, as associations take it. Raises UsageError for TLS by files that are no certificates."""
    tls = None if peer.tls is None else Trusted(**peer.tls.model_dump())
    if tls is not None:
        _ = tls.context  # refused before anything waits to be sent
    return Peer(peer.name, peer.ae_title, peer.host, peer.port, frozenset(peer.may), peer.commit, tls)
