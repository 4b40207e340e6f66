"""The cases of a data set from its files. Listed is what is imported at its first use: DICOM takes half a second."""

from hilum.lazy import lazy_index

lazy_index(__name__)
