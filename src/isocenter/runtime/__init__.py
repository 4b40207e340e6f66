"""The model as one object: preprocessing, network and decoding, with bounded memory, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.cascade import label_numbers, with_first_stage
    from isocenter.runtime.certificate import certify
    from isocenter.runtime.covariate_encoding import (
        Category,
        Column,
        Context,
        Monitored,
        Number,
        Presence,
        with_covariates,
    )
    from isocenter.runtime.device import (
        available_memory,
        bf16_pays,
        choose_device,
        environment,
        gpu_memory,
        peak_memory,
        use_threads,
    )
    from isocenter.runtime.differentiable import Differentiable, twin
    from isocenter.runtime.directions import Directions
    from isocenter.runtime.ensemble import MEMBERS, averaged_model, on_device, write_members
    from isocenter.runtime.foreign import (
        CALIBRATED,
        is_foreign,
        load_foreign,
        read_postprocessing,
        why_unkept,
        why_unpackable,
        write_calibrated,
    )
    from isocenter.runtime.guard import (
        MOST_TRAINED,
        Answering,
        Guard,
        Observation,
        Watching,
        fitted_guard,
        observed,
        refitted,
        strictest,
        tail_note,
        with_guard,
    )
    from isocenter.runtime.label_measurements import measurements
    from isocenter.runtime.memory import Expected, expected_memory, fitting_memory, kept_memory
    from isocenter.runtime.model import Inference, Model, build_module, each_of, image_of
    from isocenter.runtime.model_files import BEFORE, checkpoints_of, load, save
    from isocenter.runtime.model_parts import read_parts, write_parts
    from isocenter.runtime.package import (
        EXPLANATIONS,
        EXPLANATIONS_SCHEMA,
        PACKAGED,
        RUN_COMMAND,
        WEIGHTS,
        Certificate,
        Evidence,
        mean_of,
        package_record,
        read_certificate,
        unpacked,
        write_package,
        write_zip,
    )
    from isocenter.runtime.package.backends import refuse_unknown
    from isocenter.runtime.parallel import Cluster, Spread, in_threads, in_workers, local, outcome_of
    from isocenter.runtime.preprocessing import Preprocessing, Trace
    from isocenter.runtime.proportion import (
        MOST_TIMES,
        UNLIKE_SPACING,
        Looking,
        disproportionate,
        refuse_out_of_proportion,
    )
    from isocenter.runtime.record_files import (
        amend,
        as_json,
        digest,
        read_json,
        read_tensors,
        seal,
        verify,
        write_json,
        write_tensors,
    )
    from isocenter.runtime.sealed_cache import sealed_entry
    from isocenter.runtime.smaller_batches import SmallerBatches, in_smaller_batches, with_smaller_batches
    from isocenter.runtime.stream import size_changes
    from isocenter.runtime.torch_network import TorchNetwork
    from isocenter.runtime.uncertainty import (
        EPISTEMIC,
        METHODS,
        TOTAL,
        LastLayers,
        last_layers_of,
        with_uncertainty,
    )
    from isocenter.runtime.windows import BLANK, Averaged, Receiver
    from isocenter.runtime.windows.slide import Network, slide, window_count

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
