"""Packages: a model as a MONAI bundle that runs without Isocenter, and that Isocenter loads."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.package.archive import unpacked, write_zip
    from isocenter.runtime.package.backends.onnx import OnnxNetwork, Provider, onnx_errors, open_onnx, usable_cores
    from isocenter.runtime.package.certificate import TOLERANCES, Certificate, Difference, Trial, read_certificate
    from isocenter.runtime.package.certification import certify
    from isocenter.runtime.package.choose_backend import PLAIN, TYPICAL_IMAGES
    from isocenter.runtime.package.contents import (
        EXPLANATIONS,
        EXPLANATIONS_SCHEMA,
        MOST_MEMBERS,
        ONNX,
        PACKAGED,
        RECORD,
        SCHEMA,
        WEIGHTS,
        mean_of,
        package_record,
        read_modules,
        shares_in,
    )
    from isocenter.runtime.package.read import joined, no_fold, read_package
    from isocenter.runtime.package.readme import RUN_COMMAND
    from isocenter.runtime.package.write import Evidence, write_package

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
