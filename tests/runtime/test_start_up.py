"""What must work without torch, each in a process of its own."""

from __future__ import annotations

import json
import subprocess
import sys

import nibabel
import numpy as np
import pytest

HEAVY = {"torch", "torchvision", "lightning_fabric", "matplotlib", "sklearn", "pandas", "scipy", "pyarrow"}
# Half a second each, and only one kind of file or of backend needs them.
LATE = {"pydicom", "highdicom", "nibabel", "SimpleITK", "h5py", "cv2", "onnx", "onnxruntime", "openvino"}
BLOCK = """
import sys
class Blocked:
    def find_spec(self, name, path=None, target=None):
        if name.partition(".")[0] in ("torch", "torchvision", "monai", "lightning_fabric"):
            raise ImportError(f"{name} is blocked")
sys.meta_path.insert(0, Blocked())
"""
PREDICT = """
import numpy as np
from hilum import tasks
from hilum.runtime.inference import Inference
from hilum.runtime import Model, Preprocessing
from hilum.runtime.torch_networks import Networks
from hilum.transforms.intensity import Normalisation
from hilum.tasks import task_catalogue

labels = [{"value": 4, "name": "bright"}]
settings = {"name": "segmentation", "labels": labels, "loss": "dice+ce", "tolerance": 2.0}
segmentation = task_catalogue.build_task(settings)
preprocessing = Preprocessing(3, ("0",), (Normalisation("window", 0, 10),), spacing=(1.0, 1.0, 1.0))
network = lambda batch: {"mask": np.concatenate([np.full_like(batch, 5), batch], axis=1)}
result = Model(segmentation, preprocessing, Inference((4, 4, 4)), Networks(network, {})).predict(PATH)
print(np.bincount(np.asarray(result.data).ravel()).tolist())

classification = task_catalogue.build_task({"name": "classification", "classes": ["a", "b"], "smoothing": 0.0})
preprocessing = Preprocessing(3, ("0",), (Normalisation("zscore"),), shape=(4, 4, 4))
network = lambda batch: {"class": np.zeros((len(batch), 2), np.float32)}
print(Model(classification, preprocessing, Inference((4, 4, 4)), Networks(network, {})).predict(PATH).probabilities)
print("torch" in sys.modules)
"""


@pytest.fixture
def path(tmp_path):
    voxels = np.zeros((6, 6, 6), np.int16)
    voxels[2:4, 2:4, 2:4] = 9
    nibabel.Nifti1Image(voxels, np.diag([-1, 1, 1, 1])).to_filename(tmp_path / "image.nii.gz")
    return tmp_path / "image.nii.gz"


def printed(code: str) -> list[str]:
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr
    return done.stdout.splitlines()


@pytest.mark.parametrize(
    "code",
    [
        "import hilum",
        "import hilum; hilum.__version__; dir(hilum)",
        "import hilum.values, hilum.errors, hilum.lazy",
        "import hilum.files",
        "import hilum.transforms, hilum.networks, hilum.tasks, hilum.runtime",
        "import hilum; assert hilum.read(PATH).data.max() == 9",
        "import hilum; hilum.write(hilum.read(PATH), PATH + '.nrrd')",
    ],
)
def test_start_up_and_reading_load_no_torch(path, code):
    [heavy] = printed(f"PATH = {str(path)!r}\n{code}\nimport sys; print({HEAVY - {'scipy'}} & set(sys.modules))")
    assert heavy == "set()"


def test_volumes_of_nifti_are_read_without_libraries_of_other_formats(path):
    """Of nibabel too, which needs a third of a second: only headers in which something is odd are its."""
    folder = path.parent / "set"
    for name in ("images", "labels"):
        (folder / name).mkdir(parents=True)
        (folder / name / path.name).write_bytes(path.read_bytes())
    code = (
        f"from hilum.layouts import dataset_layouts as read; import sys; "
        f"[case] = read.read_dataset({str(folder)!r}); "
        "case.images['image'].data, case.references['mask'].data; "
        f"print({LATE | {'tifffile', 'PIL', 'imagecodecs'}} & set(sys.modules))"
    )
    assert printed(code) == ["set()"]


def test_verbs_that_are_looked_at_have_imported_nothing_that_takes_long():
    verbs = ", ".join(f"hilum.{one}" for one in ("predict", "check", "convert", "view", "plan", "load", "train"))
    [loaded] = printed(f"import hilum, sys; {verbs}; print(({HEAVY} | {LATE}) & set(sys.modules))")
    assert loaded == "set()"


def test_a_command_line_imports_typer_alone_until_it_knows_its_command_and_then_the_options_of_that_one():
    late = HEAVY | LATE | {"rich", "jinja2", "numpy", "pydantic", "psutil"}
    code = f"from hilum.cli import app, main; import sys; print({late} & set(sys.modules))"
    ours = "('hilum.verbs.', 'hilum.reading.', 'hilum.options.')"
    shown = f"print([name for name in sys.modules if name.startswith({ours})])"
    asked = "sys.argv = ['hilum', 'mcp', '--help']\ntry:\n    main()\nexcept SystemExit:\n    pass"
    first, second, *_, last = printed(f"{code}\n{shown}\n{asked}\n{shown}")
    assert (first, second) == ("set()", "['hilum.options.command_index']")
    assert last == "['hilum.options.command_index', 'hilum.options.doors']"


def test_info_answers_without_numpy_and_without_the_libraries_that_it_lists():
    late = HEAVY | LATE | {"numpy", "psutil", "rich", "jinja2"}
    code = "import sys; from hilum.cli import main; sys.argv = ['hilum', 'info', '--json']"
    asked = "try:\n    main()\nexcept SystemExit:\n    pass"
    record, loaded = printed(f"{code}\n{asked}\nprint({late} & set(sys.modules))")
    assert loaded == "set()"
    listed = json.loads(record)
    assert {"segmentation", "survival"} <= listed["kinds_of_problem"].keys()
    assert listed["networks"]["unet"]


def test_doctor_looks_at_the_machine_without_torch_and_without_the_libraries_of_formats():
    late = HEAVY | LATE | {"monai", "timm", "captum", "sqlalchemy", "fastapi"}
    code = "import sys; from hilum.cli import main; sys.argv = ['hilum', 'doctor', '--json']"
    code += "; from hilum.verbs import doctor; doctor.LIMIT_S = 60.0"
    asked = "try:\n    main()\nexcept SystemExit as ended:\n    code = ended.code"
    record, loaded, code = printed(f"{code}\n{asked}\nprint({late} & set(sys.modules))\nprint(code)")
    assert (loaded, code) == ("set()", "0")
    assert {row["what"] for row in json.loads(record)["rows"]} >= {"Python", "GPU", "extra service"}


def test_import_hilum_loads_only_what_finds_its_names():
    [loaded] = printed("import hilum, sys; print(sorted(m for m in sys.modules if m.startswith('hilum.')))")
    assert loaded == "['hilum.lazy']"


def test_prediction_of_both_tasks_runs_where_torch_cannot_be_imported(path):
    counts, probabilities, loaded = printed(f"{BLOCK}\nPATH = {str(path)!r}\n{PREDICT}")
    assert counts == "[208, 0, 0, 0, 8]"
    assert probabilities == "{'a': 0.5, 'b': 0.5}"
    assert loaded == "False"


@pytest.mark.whole
def test_the_lazy_torch_is_the_real_one_once_it_is_used():
    code = "from hilum.lazy import torch; import sys; print('torch' in sys.modules, torch.tensor([2]).item())"
    assert printed(code) == ["False 2"]


def test_what_is_replaced_in_a_lazy_module_is_there_again_afterwards():
    code = (
        "import pytest; from hilum.training import _logs; patch = pytest.MonkeyPatch(); earlier = _logs.LOGS;"
        "patch.setattr(_logs, 'LOGS', ()); patch.undo(); print(_logs.LOGS is earlier)"
    )
    assert printed(code) == ["True"]


@pytest.mark.whole
def test_explaining_loads_monai_only_for_the_maps_that_it_makes():
    """Loading it takes seconds, as long as many a map by another method."""
    assert printed("import sys, hilum.explanation.explanation_methods; print('monai' in sys.modules)") == ["False"]
