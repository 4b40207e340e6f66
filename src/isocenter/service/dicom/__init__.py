"""DICOM over the network: receive objects, and ask peers."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.service.dicom.asking import find, get, move, report_commitment, request_commitment
    from isocenter.service.dicom.listening import Listening, Peer, Secured, Trusted, server_context
    from isocenter.service.dicom.receiver import Receiver, run_receiver
    from isocenter.service.dicom.sending import PeerError, Sent, echo, store

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
