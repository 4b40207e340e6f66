"""The Open Inference Protocol v2: a model's whole answer for one image, without DICOM."""

from hilum.lazy import lazy_index

lazy_index(__name__)
