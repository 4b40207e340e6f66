"""Which store for prepared cases: blosc2 or zarr, by writing and by reading random patches.

pip install zarr; python bench/store.py
"""

from __future__ import annotations

import tempfile
import time
from pathlib import Path

import blosc2
import numpy as np
import zarr

SHAPE, PATCH, CASES, PATCHES = (1, 192, 192, 96), (64, 64, 48), 6, 60


def main() -> None:
    random = np.random.default_rng(0)
    smooth = np.cumsum(random.normal(size=SHAPE).astype(np.float32), axis=1)
    print("| store | write, ms a case | MiB a case | patch, ms (median) | patch, ms (95th percentile) |")
    print("|---|---|---|---|---|")
    with tempfile.TemporaryDirectory() as folder:
        for name, write, read in (("blosc2", _write_blosc2, _read_blosc2), ("zarr", _write_zarr, _read_zarr)):
            began = time.perf_counter()
            places = [write(smooth, Path(folder) / f"{name}{n}") for n in range(CASES)]
            writing = (time.perf_counter() - began) / CASES
            size = sum(f.stat().st_size for p in places for f in ([p] if p.is_file() else p.rglob("*")) if f.is_file())
            times = []
            for n in range(PATCHES):
                corner = [int(random.integers(whole - part + 1)) for whole, part in zip(SHAPE[1:], PATCH, strict=True)]
                region = (slice(None), *(slice(c, c + p) for c, p in zip(corner, PATCH, strict=True)))
                mark = time.perf_counter()
                read(places[n % CASES], region)
                times.append(time.perf_counter() - mark)
            middle, slow = (1000 * float(np.quantile(times, q)) for q in (0.5, 0.95))
            print(f"| {name} | {1000 * writing:.1f} | {size / CASES / 2**20:.1f} | {middle:.2f} | {slow:.2f} |")


def _write_blosc2(array: np.ndarray, place: Path) -> Path:
    path = place.with_suffix(".b2nd")
    settings = {"codec": blosc2.Codec.LZ4, "clevel": 1, "nthreads": 1}
    blosc2.asarray(array, urlpath=str(path), mode="w", cparams=settings)
    return path


def _read_blosc2(place: Path, region: tuple[slice, ...]) -> np.ndarray:
    return blosc2.open(str(place), mode="r", dparams={"nthreads": 1})[region]


def _write_zarr(array: np.ndarray, place: Path) -> Path:
    zarr.create_array(store=str(place), data=array, chunks=(1, *PATCH))
    return place


def _read_zarr(place: Path, region: tuple[slice, ...]) -> np.ndarray:
    return np.asarray(zarr.open_array(str(place), mode="r")[region])


if __name__ == "__main__":
    main()
