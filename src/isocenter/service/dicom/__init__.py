"""DICOM over the network: receive objects, and ask peers."""

from isocenter.lazy import lazy_index

__getattr__ = lazy_index(__name__)
