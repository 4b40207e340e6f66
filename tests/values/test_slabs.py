from __future__ import annotations

import numpy as np
from numpy.testing import assert_array_equal

from hilum.values import slabs


def test_a_volume_goes_through_in_planes_wherever_its_single_channel_lies(tmp_path, monkeypatch):
    monkeypatch.setattr(slabs, "SLAB_VOXELS", 24)
    (tmp_path / "voxels").write_bytes(np.arange(120, dtype=np.uint8).tobytes())
    mapped = np.memmap(tmp_path / "voxels", np.uint8, "r", shape=(4, 6, 5, 1), order="F").transpose(3, 0, 1, 2)
    parts = [part for _, (part,) in slabs.memory_slabs(mapped)]
    assert [part.size for part in parts] == [24] * 5
    assert_array_equal(np.concatenate([part.ravel() for part in parts]), np.arange(120))
