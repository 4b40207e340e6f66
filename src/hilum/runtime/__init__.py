"""The model as one object: preprocessing, network and decoding, with bounded memory, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from hilum.lazy import lazy_index

if TYPE_CHECKING:
    from hilum.runtime import (
        cascade,
        covariate_encoding,
        ensemble,
        foreign,
        guard,
        hardware,
        image_synthesis,
        inference,
        label_measurements,
        model_assembly,
        model_files,
        model_identity,
        model_parts,
        model_record,
        model_schema,
        package,
        parallel,
        part_settings,
        predicted_memory,
        prediction_layers,
        preprocessing,
        prompting,
        proportion,
        record_files,
        result_codes,
        torch_networks,
        uncertainty,
        windows,
    )
    from hilum.runtime.covariate_encoding import Context
    from hilum.runtime.inference import ModelRequest
    from hilum.runtime.model_assembly import Model
    from hilum.runtime.preprocessing.preprocessing import Preprocessing

lazy_index(__name__)
