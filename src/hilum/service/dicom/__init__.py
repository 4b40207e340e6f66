"""DICOM over the network: receive objects, and ask peers."""

from hilum.lazy import lazy_index

lazy_index(__name__)
