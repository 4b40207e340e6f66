"""DICOM objects: read as images and label maps, written as series, SEG and SR."""

from hilum.lazy import lazy_index

lazy_index(__name__)
