"""What may be handed on: objects and images without the identity of their patients, PS3.15 annex E.

Attributes go by the standard's own table, UIDs and patients get names that a key makes, text burned into pixels is
blacked. The key's owner alone finds the way back.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.deidentification import (
        attribute_cleaning,
        burned_in_text,
        coded_images,
        common_words,
        confidentiality_profile,
        dicom_objects,
        handed_folder,
        identifiers,
        keyed_names,
        pixel_bytes,
        stated_text,
    )

lazy_index(__name__)
