"""The model as one object: preprocessing, network and decoding, with bounded memory, on any device."""

from __future__ import annotations

from typing import TYPE_CHECKING

from isocenter.lazy import lazy_index

if TYPE_CHECKING:
    from isocenter.runtime.cascade import LabelSource, label_numbers
    from isocenter.runtime.codes import coded_findings, coded_labels, codes_of, with_codes
    from isocenter.runtime.covariate_encoding import (
        Category,
        Context,
        Monitored,
        Number,
        Presence,
        with_covariates,
    )
    from isocenter.runtime.device import (
        announce,
        announced_device,
        available_memory,
        bf16_pays,
        choose_device,
        environment,
        gpu_memory,
        kept_memory,
        peak_memory,
        use_threads,
        versions,
    )
    from isocenter.runtime.ensemble import MEMBERS, averaged_model, on_device, write_members
    from isocenter.runtime.foreign import (
        CALIBRATED,
        is_foreign,
        is_nnunet,
        load_foreign,
        nnunet_start,
        read_postprocessing,
        refuse_almost,
        why_unkept,
        why_unpackable,
        write_calibrated,
    )
    from isocenter.runtime.guard.guard import (
        MOST_TRAINED,
        Answering,
        Guard,
        fitted_guard,
        refitted,
        strictest,
        tail_note,
    )
    from isocenter.runtime.guard.observation import Observation, Watching
    from isocenter.runtime.inference import AS_PLANNED, Inference, Request
    from isocenter.runtime.label_measurements import checked_ratios, measurements, ratios_of, with_ratios
    from isocenter.runtime.layers import each_of, size_changes
    from isocenter.runtime.model import Model, image_of, with_first_stage, with_uncertainty
    from isocenter.runtime.model_files import BEFORE, REPORT, checkpoints_of, load, save
    from isocenter.runtime.model_record import read_parts
    from isocenter.runtime.networks import (
        Differentiable,
        KeptOutputs,
        Networks,
        SmallerBatches,
        TorchNetwork,
        build_module,
        in_smaller_batches,
        twin,
    )
    from isocenter.runtime.package.backends import refuse_unknown
    from isocenter.runtime.package.certificate import Certificate, read_certificate
    from isocenter.runtime.package.certification import certify
    from isocenter.runtime.package.contents import (
        EXPLANATIONS,
        EXPLANATIONS_SCHEMA,
        PACKAGED,
        WEIGHTS,
        mean_of,
        model_settings,
        package_record,
    )
    from isocenter.runtime.package.readme import RUN_COMMAND
    from isocenter.runtime.package.triton import NETWORK_ALONE, TRITON_RECORD, write_triton
    from isocenter.runtime.package.write import Evidence, write_package
    from isocenter.runtime.parallel.dask_cluster import Cluster
    from isocenter.runtime.parallel.map_cases import Spread, in_threads, in_workers, local, outcome_of
    from isocenter.runtime.parts import WITHOUT_PARTS, Directions, Parts
    from isocenter.runtime.predicted_memory import USABLE, expected_memory, fitting_memory, with_smaller_batches
    from isocenter.runtime.preprocessing.coarse_mask import AIR_MARGIN, body_of
    from isocenter.runtime.preprocessing.preprocessing import Preprocessing, Streamed
    from isocenter.runtime.preprocessing.protocol import Trace
    from isocenter.runtime.proportion import (
        MOST_TIMES,
        UNLIKE_SPACING,
        Looking,
        disproportionate,
        prepared_shape,
        refuse_out_of_proportion,
    )
    from isocenter.runtime.record_files import (
        amend,
        as_json,
        digest,
        read_json,
        read_tensors,
        seal,
        sealed_entry,
        unpacked,
        verify,
        write_json,
        write_tensors,
        write_zip,
    )
    from isocenter.runtime.uncertainty.disagreement import EPISTEMIC, TOTAL
    from isocenter.runtime.uncertainty.methods import LastLayers, last_layers_of
    from isocenter.runtime.windows.averaging import Averaged
    from isocenter.runtime.windows.pipeline import BLANK, Receiver
    from isocenter.runtime.windows.slide import Network, Skipping, part_of_windows, slide, window_count

if not TYPE_CHECKING:
    __getattr__ = lazy_index(__name__)
