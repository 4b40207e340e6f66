"""An application of the MONAI Deploy App SDK runs a package unmodified, as the page says."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import nibabel
import numpy as np
import pytest

import hilum
import packages

PAGE = Path(__file__).parents[2] / "docs" / "how-to" / "other-programs.md"
# A Python that has the SDK, which wants Holoscan and CUDA's runtime library; else this one.
PYTHON = os.environ.get("HILUM_DEPLOY_PYTHON", sys.executable)


@pytest.mark.whole
def test_the_application_of_the_page_writes_what_predict_writes(tmp_path):
    asked = subprocess.run([PYTHON, "-c", "import monai.deploy.core"], capture_output=True, check=False)
    if asked.returncode:
        pytest.skip("the MONAI Deploy App SDK is not installed: set HILUM_DEPLOY_PYTHON")
    with packages.no_export():
        package = packages.packed(packages.segmenting(), tmp_path / "package")
    (tmp_path / "images").mkdir()
    voxels = np.random.default_rng(0).normal(size=(40, 44, 36)).astype(np.float32)
    nibabel.save(nibabel.Nifti1Image(voxels, np.eye(4)), tmp_path / "images" / "a.nii.gz")
    code = re.search(r"## MONAI Deploy.*?```python\n(.*?)```", PAGE.read_text(encoding="utf-8"), re.DOTALL)
    assert code is not None
    (tmp_path / "app.py").write_text(code[1])
    words = [PYTHON, "app.py", "package", "images", "results"]
    done = subprocess.run(words, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]
    expected = hilum.load(package, "cpu").predict(tmp_path / "images" / "a.nii.gz")
    found = np.asarray(nibabel.load(tmp_path / "results" / "a.nii.gz").dataobj)
    assert (found == np.asarray(expected.data)).mean() > 0.9999
