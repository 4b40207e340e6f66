"""Reading and writing: one file a format; the only room that knows LPS.

The geometry contract: what comes in lies where the file places it, in RAS+ mm, or is refused; what goes out lies on the
source's own grid, or is refused.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.files import (
        array_image,
        code_file,
        dicom,
        file_formats,
        format_options,
        label_table,
        measurement_file,
        modality_words,
        nifti,
        numpy_file,
        patient_names,
        pictures,
        point_list,
        polygon,
        result_images,
        series,
        slides,
        storage,
        surface_mesh,
        synthetic_marks,
        transform_file,
        video,
    )

lazy_index(__name__)
