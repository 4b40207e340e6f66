"""nnU-Net's side of `clinical_sizes.py`, in nnU-Net's environment: fingerprint and preprocessing of one case.

python bench/sides/clinical_nnunet.py look|prepare FOLDER THREADS

Both call what `nnUNetv2_plan_and_preprocess` calls for one case, in this process, so that its processor seconds and
its memory are those of the work alone. The spacing and the normalisation are those of our side.
"""

from __future__ import annotations

import json
import os
import resource
import sys
import tempfile
from pathlib import Path

STEPS = [1.5, 1.5, 1.5]


def main() -> None:
    part, folder, _ = sys.argv[1:]
    with tempfile.TemporaryDirectory(dir=folder) as place:
        for name in ("raw", "preprocessed", "results"):
            os.environ[f"nnUNet_{name}"] = place
        image, label = ([str(folder / path)] for folder, path in _files(Path(folder)))
        began = os.times()
        said = {"look": _fingerprint, "prepare": _preprocess}[part](image, label[0], Path(folder))
        ended = os.times()
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024
    print(json.dumps({**said, "cpu_seconds": sum(ended[:4]) - sum(began[:4]), "rss_mib": peak}))


def _files(folder: Path) -> tuple[tuple[Path, str], ...]:
    return tuple((one, next(one.iterdir()).name) for one in (folder / "imagesTr", folder / "labelsTr"))


def _fingerprint(image: list[str], label: str, _: Path) -> dict[str, object]:
    from nnunetv2.experiment_planning.dataset_fingerprint.fingerprint_extractor import DatasetFingerprintExtractor
    from nnunetv2.imageio.nibabel_reader_writer import NibabelIO

    shape, spacing, *_ = DatasetFingerprintExtractor.analyze_case(image, label, NibabelIO, 10000)
    return {"shape": [int(n) for n in shape], "spacing": [float(mm) for mm in spacing]}


def _preprocess(image: list[str], label: str, folder: Path) -> dict[str, object]:
    from nnunetv2.preprocessing.preprocessors.default_preprocessor import DefaultPreprocessor
    from nnunetv2.utilities.plans_handling.plans_handler import PlansManager

    resampling = {"is_seg": False, "order": 3, "order_z": 0, "force_separate_z": None}
    configuration = {
        "spacing": STEPS,
        "patch_size": [96, 96, 96],
        "architecture": {"network_class_name": "none", "arch_kwargs": {}, "_kw_requires_import": []},
        "normalization_schemes": ["CTNormalization"],
        "use_mask_for_norm": [False],
        "resampling_fn_data": "resample_data_or_seg_to_shape",
        "resampling_fn_data_kwargs": resampling,
        "resampling_fn_seg": "resample_data_or_seg_to_shape",
        "resampling_fn_seg_kwargs": {**resampling, "is_seg": True, "order": 1},
    }
    intensities = {"mean": -300.0, "std": 400.0, "percentile_00_5": -1000.0, "percentile_99_5": 300.0}
    plans = PlansManager(
        {
            "dataset_name": "one",
            "transpose_forward": [0, 1, 2],
            "transpose_backward": [0, 1, 2],
            "image_reader_writer": "NibabelIO",
            "foreground_intensity_properties_per_channel": {"0": intensities},
            "configurations": {"3d": configuration},
        }
    )
    declared = json.loads((folder / "dataset.json").read_text())
    chosen = plans.get_configuration("3d")
    with tempfile.TemporaryDirectory(dir=folder) as place:
        DefaultPreprocessor(verbose=False).run_case_save(f"{place}/c", image, label, plans, chosen, declared)
        return {"stored": sum(path.stat().st_size for path in Path(place).iterdir())}


if __name__ == "__main__":
    main()
