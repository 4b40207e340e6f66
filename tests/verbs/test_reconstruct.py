"""Images from files of measurements, and files that are refused."""

from __future__ import annotations

import json
import shutil
import subprocess
from dataclasses import replace

import h5py
import nibabel
import numpy as np
import pytest
from numpy.testing import assert_allclose

import hilum
from hilum.errors import DatasetError, FormatError, UsageError
from hilum.files import measurement_file
from hilum.reading import ReadingOptions, dataset_reading

SIZE = 16
ANGLES = [float(one) for one in range(0, 180, 6)]
CT = {
    "kind": "parallel",
    "angles_deg": ANGLES,
    "bin_mm": 1.0,
    "image": {"shape": [SIZE, SIZE], "spacing_mm": [1.0, 1.0]},
}
MR = {"kind": "cartesian", "image": {"shape": [SIZE, SIZE], "spacing_mm": [2.0, 1.5]}}


def disk():
    place = np.arange(SIZE) - 7.5
    return (np.hypot(place[:, None] - 2, place + 1) < 5).astype(np.float32)


def save(path, record, data, **arrays):
    np.savez(path, acquisition=np.array(json.dumps(record)), data=data, **arrays)
    return path


def sinogram(record=CT, noise=0.02):
    operator = hilum.operator({**record, "bins": 25})
    measured = operator.forward(disk())
    return (measured + np.random.default_rng(0).normal(0, noise, measured.shape)).astype(np.float32)


def kspace(image=None, mask=None, **arrays):
    operator = hilum.operator({**MR, "mask": mask, **arrays})
    measured = operator.forward((disk() if image is None else image).astype(np.complex64))
    noise = np.random.default_rng(1).normal(0, 0.01, (2, *measured.shape))
    return ((measured + noise[0] + 1j * noise[1]) * (1 if mask is None else mask)).astype(np.complex64)


def columns(step=3, centre=(6, 11)):
    mask = np.zeros((SIZE, SIZE), np.uint8)
    mask[:, ::step] = mask[:, centre[0] : centre[1]] = 1
    return mask


def error_of(image):
    return float(np.sqrt(np.mean((np.squeeze(image.data) - disk()) ** 2)))


def test_files_of_ct_and_mr_become_images_with_a_record_and_a_page(tmp_path):
    save(tmp_path / "ct.npz", CT, sinogram())
    save(tmp_path / "mr.npz", MR, kspace())
    out = tmp_path / "out"
    result = hilum.reconstruct(tmp_path, out=out)
    assert {row["case"]: row["method"] for row in result.cases} == {"ct": "fbp", "mr": "zero_filled"}
    image = hilum.read(out / "mr_reconstruction.nii.gz")
    assert_allclose(image.geometry.spacing, (2.0, 1.5, 1.0))
    assert error_of(image) < 0.02
    assert error_of(hilum.read(out / "ct_reconstruction.nii.gz")) < 0.2
    record = json.loads((out / "reconstruction.json").read_text())
    assert record["cases"][0].keys() >= {"method", "method_because", "noise", "residual", "seconds"}
    assert "Reconstruction" in (out / "report.html").read_text()


@pytest.mark.parametrize(
    ("record", "method", "because"),
    [
        (CT, "fbp", "30 views cover 100% of the directions that 16 pixels of width need"),
        (CT | {"angles_deg": ANGLES[::2]}, "tv", "15 views cover 60% of the directions"),
        (CT | {"angles_deg": ANGLES[::2] * 3}, "tv", "45 views cover 60% of the directions"),
        (CT | {"angles_deg": [n / 2 for n in range(180)]}, "tv", "180 views cover 54% of the directions"),
        (CT | {"angles_deg": [n * 2.0 for n in range(180)]}, "fbp", "180 views cover 100% of the directions"),
        (CT | {"angles_deg": ANGLES[:10] + ANGLES[11:]}, "fbp", "29 views cover 97% of the directions"),
    ],
)
def test_the_method_follows_from_what_was_measured(tmp_path, record, method, because):
    data = np.maximum(sinogram(record), 0)
    [row] = hilum.reconstruct(save(tmp_path / "one.npz", record, data)).cases
    assert row["method"] == method
    assert because in row["method_because"]


def problems_of(path, record, data):
    return [problem.what for problem in hilum.reconstruct(save(path / "ct.npz", record, data)).problems]


def test_directions_that_views_leave_out_and_a_wrong_geometry_are_warnings(tmp_path):
    half = CT | {"angles_deg": ANGLES[: len(ANGLES) // 2]}
    assert not problems_of(tmp_path, CT, sinogram())
    assert not problems_of(tmp_path, CT, sinogram(noise=1.0))
    [left_out] = problems_of(tmp_path, half, sinogram(half))
    assert left_out.startswith("ct: the views leave out 96 of 180 degrees")
    for wrong in (
        np.random.default_rng(0).permutation(sinogram()),  # views in another order
        np.roll(sinogram(), 5, axis=-1),  # the centre of the bins elsewhere
    ):
        [contradicts] = problems_of(tmp_path, CT, wrong)
        assert "of the measurement beyond its noise: angles_deg" in contradicts


def test_undersampled_k_space_is_made_by_total_variation_which_is_nearer_than_zero_filling(tmp_path):
    mask = columns()
    path = save(tmp_path / "mr.npz", MR, kspace(mask=mask), mask=mask)
    found, plain = (hilum.reconstruct(path, method=one) for one in ("auto", "zero_filled"))
    assert found.cases[0]["method"] == "tv"
    assert error_of(found.images["mr"]) < 0.7 * error_of(plain.images["mr"])


def test_the_weight_leaves_a_residual_as_large_as_the_noise_and_grows_with_it(tmp_path):
    weights = []
    for noise in (0.3, 1.2):
        path = save(tmp_path / f"noise{noise}.npz", CT, sinogram(noise=noise))
        [row] = hilum.reconstruct(path, method="tv").cases
        assert 0.7 < row["noise"] / noise < 2
        weights.append(row["weight"])
        assert f"whose standard deviation is {row['noise']:.3g}" in row["weight_because"]
    assert weights[1] > 1.5 * weights[0]


def test_photons_are_made_line_integrals(tmp_path):
    data = 1e6 * np.exp(-sinogram(noise=0) / 10)
    path = save(tmp_path / "ct.npz", CT | {"counts": True, "i0": 1e6}, data)
    result = hilum.reconstruct(path, method="fbp")
    assert_allclose(
        10 * result.images["ct"].data,
        hilum.reconstruct(save(tmp_path / "lines.npz", CT, sinogram(noise=0)), method="fbp").images["lines"].data,
        atol=1e-3,
    )


def test_coils_without_sensitivities_take_them_from_their_centre_and_slices_become_the_last_axis(tmp_path):
    row, column = np.meshgrid(np.linspace(-1, 1, SIZE), np.linspace(-1, 1, SIZE), indexing="ij")
    maps = np.stack([np.exp(row / 2), np.exp(-row / 2), np.exp(column / 2 + 1j)])
    maps /= np.sqrt((np.abs(maps) ** 2).sum(axis=0))
    data = np.stack([kspace(sensitivities=maps)] * 2)
    path = save(tmp_path / "mr.npz", MR | {"coils": 3}, data)
    image = hilum.reconstruct(path).images["mr"]
    assert image.data.shape == (1, SIZE, SIZE, 2)
    inside = disk() == 1
    assert abs(image.data[0, ..., 0][inside].mean() - 1) < 0.1


def test_an_array_with_a_json_file_is_a_measurement(tmp_path):
    np.save(tmp_path / "ct.npy", sinogram())
    (tmp_path / "scan.json").write_text(json.dumps(CT))
    assert hilum.reconstruct(tmp_path / "ct.npy", acquisition=tmp_path / "scan.json").cases[0]["kind"] == "parallel"
    with pytest.raises(DatasetError, match="does not say how it was measured"):
        hilum.reconstruct(tmp_path / "ct.npy")


HEADER = b"""<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding><trajectory>%s</trajectory><encodedSpace>
<matrixSize><x>16</x><y>16</y><z>1</z></matrixSize><fieldOfView_mm><x>32</x><y>24</y><z>5</z></fieldOfView_mm>
</encodedSpace></encoding></ismrmrdHeader>"""


def test_a_file_of_fastmri_is_read_and_one_that_is_not_cartesian_is_refused(tmp_path):
    for name, trajectory in (("good", b"cartesian"), ("bad", b"radial")):
        with h5py.File(tmp_path / f"{name}.h5", "w") as file:
            file["kspace"], file["ismrmrd_header"] = np.stack([kspace()] * 2), HEADER % trajectory
    image = hilum.reconstruct(tmp_path / "good.h5").images["good"]
    assert_allclose(image.geometry.spacing, (2.0, 1.5, 5.0))
    assert_allclose(image.data[0, ..., 1], disk(), atol=0.05)
    with pytest.raises(DatasetError, match="radial trajectory"):
        hilum.reconstruct(tmp_path / "bad.h5")


def test_the_readout_of_fastmri_is_cut_to_its_field_and_a_pixel_is_the_field_over_the_columns(tmp_path):
    wide = np.zeros((2 * SIZE, 20), np.float32)  # a field of 64 x 30 mm, of which 32 x 24 mm are shown
    wide[SIZE // 2 : SIZE // 2 + SIZE, 2 : 2 + SIZE] = disk()
    measured = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wide), norm="ortho"))[:, 1:19].astype(np.complex64)
    spaces = [
        f"<{name}><matrixSize><x>{rows}</x><y>{columns}</y><z>1</z></matrixSize>"
        f"<fieldOfView_mm><x>{2 * rows}</x><y>{1.5 * columns}</y><z>5</z></fieldOfView_mm></{name}>"
        for name, rows, columns in (("encodedSpace", 2 * SIZE, 20), ("reconSpace", SIZE, SIZE))
    ]
    with h5py.File(tmp_path / "wide.h5", "w") as file:
        file["kspace"] = measured[None]
        file["ismrmrd_header"] = (
            f'<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><encoding>{"".join(spaces)}'
            "<trajectory>cartesian</trajectory></encoding></ismrmrdHeader>"
        )
    image = hilum.reconstruct(tmp_path / "wide.h5").images["wide"]
    assert image.data.shape == (1, SIZE, 18, 1)
    assert_allclose(image.geometry.spacing, (2.0, 20 * 1.5 / 18, 5.0))


@pytest.mark.parametrize("axis", [0, 1])
@pytest.mark.parametrize("is_flat", [True, False])
def test_a_mask_of_columns_or_of_rows_alone_is_one_of_both(tmp_path, axis, is_flat):
    whole = columns() if axis == 1 else columns().T
    line = whole[0] if axis == 1 else whole[:, 0]
    stated = line if is_flat else np.expand_dims(line, 1 - axis)
    read = measurement_file.read_measurement(save(tmp_path / "one.npz", MR, kspace() * whole, mask=stated))
    assert np.array_equal(read.acquisition.mask, whole)


def test_a_mask_of_one_axis_that_nothing_tells_is_refused(tmp_path):
    path = save(tmp_path / "one.npz", MR, kspace(), mask=columns()[0])
    with pytest.raises(FormatError, match="has a mask of 16 for an image of 16 x 16: of its rows, or of its columns"):
        measurement_file.read_measurement(path)


def write_ismrmrd(
    path,
    *,
    repetitions=1,
    left_out=(),
    sizes=(SIZE, SIZE),
    trajectory="cartesian",
    backwards=(),
    phase=False,
    from_row=0,
):
    """The k-space of the disk with a readout of twice the field, in a file by ISMRMRD's own library; rows are x.

    backwards: lines that are read from the other end; phase: with lines that correct their phase
    from_row:  the first row of k-space that is read
    """
    ismrmrd = pytest.importorskip("ismrmrd")
    wide = np.zeros((2 * SIZE, SIZE), np.float32)
    wide[SIZE // 2 : SIZE // 2 + SIZE] = disk()
    measured = np.fft.fftshift(np.fft.fft2(np.fft.ifftshift(wide), norm="ortho")).astype(np.complex64)
    spaces = [
        f"<{name}><matrixSize><x>{times * sizes[0]}</x><y>{sizes[1]}</y><z>1</z></matrixSize><fieldOfView_mm>"
        f"<x>{times * 32}</x><y>24</y><z>5</z></fieldOfView_mm></{name}>"
        for name, times in (("encodedSpace", 2), ("reconSpace", 1))
    ]
    limits = f"<kspace_encoding_step_1><minimum>0</minimum><maximum>{SIZE - 1}</maximum><center>{SIZE // 2}</center>"
    file = ismrmrd.Dataset(str(path), create_if_needed=True)
    file.write_xml_header(
        '<ismrmrdHeader xmlns="http://www.ismrm.org/ISMRMRD"><experimentalConditions><H1resonanceFrequency_Hz>63500000'
        f"</H1resonanceFrequency_Hz></experimentalConditions><encoding>{''.join(spaces)}<encodingLimits>{limits}"
        f"</kspace_encoding_step_1></encodingLimits><trajectory>{trajectory}</trajectory></encoding></ismrmrdHeader>"
    )
    noise = ismrmrd.Acquisition.from_array(np.ones((1, 2 * SIZE), np.complex64))
    noise.set_flag(ismrmrd.ACQ_IS_NOISE_MEASUREMENT)
    file.append_acquisition(noise)
    if phase:
        noise.clear_all_flags()
        noise.set_flag(ismrmrd.ACQ_IS_PHASECORR_DATA)
        file.append_acquisition(noise)
    for repetition in range(repetitions):
        for place in [one for one in range(SIZE) if one not in left_out] * 2:  # two averages
            samples = measured[None, from_row:, place]
            line = ismrmrd.Acquisition.from_array(samples[:, ::-1].copy() if place in backwards else samples)
            line.idx.kspace_encode_step_1, line.idx.repetition = place, repetition
            line.center_sample = SIZE - from_row
            if place in backwards:
                line.set_flag(ismrmrd.ACQ_IS_REVERSE)
            file.append_acquisition(line)
    file.close()
    return path


def test_a_file_of_ismrmrd_is_read_with_its_readout_cut_and_its_averages_joined(tmp_path):
    image = hilum.reconstruct(write_ismrmrd(tmp_path / "full.h5")).images["full"]
    assert_allclose(image.geometry.spacing, (2.0, 1.5, 5.0))
    assert_allclose(np.squeeze(image.data), disk(), atol=1e-4)
    read = measurement_file.read_measurement(write_ismrmrd(tmp_path / "part.h5", left_out=(1, 3)))
    assert np.flatnonzero(~np.asarray(read.acquisition.mask)[0].astype(bool)).tolist() == [1, 3]


def test_lines_that_were_read_backwards_are_turned_round(tmp_path):
    path = write_ismrmrd(tmp_path / "reverse.h5", backwards=range(1, SIZE, 2))
    image = hilum.reconstruct(path).images["reverse"]
    assert_allclose(np.squeeze(image.data), disk(), atol=1e-4)


def test_what_an_asymmetric_echo_lacks_is_not_sampled(tmp_path):
    read = measurement_file.read_measurement(write_ismrmrd(tmp_path / "part.h5", from_row=6))
    mask = np.asarray(read.acquisition.mask)
    assert mask.shape == read.data.shape[-2:] == (2 * SIZE, SIZE)
    assert not mask[:6].any()
    assert mask[6:].all()
    assert_allclose(read.acquisition.spacing, (2.0, 1.5))


@pytest.mark.parametrize(
    ("asked", "problem"),
    [
        ({"backwards": (1, 3), "phase": True}, "4 lines that were read backwards, and data that correct their phase"),
        ({"repetitions": 2}, "2 values of repetition"),
        ({"trajectory": "radial"}, "radial trajectory"),
        ({"sizes": (65000, 65000)}, "of which it holds"),
        ({"sizes": (SIZE // 2, SIZE)}, "lies outside"),
    ],
)
def test_what_a_file_of_ismrmrd_cannot_be_is_refused(tmp_path, asked, problem):
    with pytest.raises(FormatError, match=problem):
        measurement_file.read_measurement(write_ismrmrd(tmp_path / "bad.h5", **asked))


@pytest.mark.skipif(shutil.which("ismrmrd_generate_cartesian_shepp_logan") is None, reason="no ismrmrd-tools")
def test_the_phantom_of_ismrmrds_own_tools_is_reconstructed(tmp_path):
    words = ["ismrmrd_generate_cartesian_shepp_logan", "-m", "64", "-c", "4", "-o", str(tmp_path / "phantom.h5")]
    subprocess.run(words, check=True, capture_output=True)
    image = hilum.reconstruct(tmp_path / "phantom.h5").images["phantom"]
    assert image.data.shape == (1, 64, 64, 1)
    found = np.squeeze(image.data)
    ring = found[1:63, 32] > 1.0  # the skull is met where the head begins and where it ends
    assert np.flatnonzero(ring)[[0, -1]].tolist() == pytest.approx([10, 50], abs=12)


def test_a_measurement_that_fails_does_not_stop_the_others(tmp_path):
    save(tmp_path / "good.npz", CT, sinogram())
    save(tmp_path / "short.npz", CT, sinogram()[:5])
    (tmp_path / "torn.npz").write_bytes(b"PK\x03\x04 no archive")
    result = hilum.reconstruct(tmp_path, out=tmp_path / "out")
    assert [row["case"] for row in result.cases] == ["good"]
    assert sorted(one.cases[0] for one in result.failures) == ["short", "torn"]


UNCENTRED = np.fft.ifftshift(kspace())


@pytest.mark.parametrize(
    ("record", "data", "arrays", "problem"),
    [
        (CT, sinogram()[:5], {}, "states 30 angles for 5 views"),
        (CT | {"angles_deg": np.deg2rad(ANGLES).tolist()}, sinogram(), {}, "none above 7 degrees"),
        (MR, kspace() * columns(), {}, "empty lines of k-space, and no mask"),
        (MR, np.abs(kspace()), {}, "real data for complex k-space"),
        (MR, UNCENTRED, {}, "not centred: its peak is at \\(0, 0\\)"),
        (MR, kspace()[:8], {}, "k-space of \\(8, 16\\) for an image of \\(16, 16\\)"),
        (MR | {"coils": 2}, np.stack([kspace()] * 3), {}, "holds 3 coils where 2 are stated"),
        (CT, sinogram() * np.nan, {}, "no finite numbers"),
        (CT | {"counts": True, "i0": 1e5}, -sinogram() - 1, {}, "counts below 0"),
        (CT, sinogram(), {"method": "zero_filled"}, "zero_filled is not for parallel"),
        (MR, kspace(), {"method": "fbp"}, "fbp is not for cartesian"),
        ("no record", sinogram(), {}, "states no kind"),
    ],
)
def test_a_measurement_that_cannot_be_is_refused_and_nothing_is_written(tmp_path, record, data, arrays, problem):
    path = save(tmp_path / "one.npz", record, data)
    with pytest.raises(DatasetError, match=problem):
        hilum.reconstruct(path, out=tmp_path / "out", **arrays)
    assert not (tmp_path / "out").exists()


def test_a_wrong_path_an_empty_folder_and_an_unknown_method_are_refused(tmp_path):
    with pytest.raises(UsageError, match="no such file"):
        hilum.reconstruct(tmp_path / "none.npz")
    with pytest.raises(FormatError, match="holds no measurement"):
        hilum.reconstruct(tmp_path)
    with pytest.raises(UsageError, match="no method 'magic'"):
        hilum.reconstruct(save(tmp_path / "ct.npz", CT, sinogram()), method="magic")


def test_a_measurement_is_no_image(tmp_path):
    with pytest.raises(FormatError, match=r"is a measurement, no image.*hilum reconstruct"):
        hilum.read(save(tmp_path / "ct.npz", CT, sinogram()))


def measured_disks(folder, count=3, coils=1):
    """images/ with disks of their own brightness, and measurements/ of them."""
    for name in ("images", "measurements"):
        (folder / name).mkdir(parents=True, exist_ok=True)
    for n in range(count):
        image = (100 + 10 * n) * disk()
        nibabel.Nifti1Image(image[..., None], np.diag([2, 1.5, 5, 1])).to_filename(folder / "images" / f"c{n}.nii.gz")
        save(folder / "measurements" / f"c{n}.npz", MR, kspace(image, columns()), mask=columns())
    return folder


def test_measurements_beside_their_images_teach_and_spheres_are_measured_with_them(tmp_path):
    settings = {"operator": "cartesian"}
    folder = measured_disks(tmp_path)
    dataset = dataset_reading.open_for_task("reconstruction", [folder], ReadingOptions(), settings=settings)
    assert [case.id.rpartition("/")[2] for case in dataset] == ["c0_1", "c1_1", "c2_1"]
    case = dataset.cases[1]
    [image], target = case.images.values(), case.references["target"]
    assert image.channels[0] == "plain inverse"
    assert_allclose(np.percentile(image.data[0], 99), 1, atol=1e-3)
    inside = disk() == 1
    assert_allclose(target.data[0][inside].mean(), image.data[0][inside].mean(), rtol=0.1)  # of one scale
    added = np.zeros((1, SIZE, SIZE), np.float32)
    added[0, 7:9, 6:8] = 0.5
    changed = image.facts["remake"](replace(target, pixels=target.data + added), target)
    gained = changed.data[0] - image.data[0]
    assert gained[7:9, 6:8].mean() == pytest.approx(0.5, abs=0.25) and abs(gained[:4, :4]).max() < 0.15
    assert_allclose(changed.data[3], image.data[3])  # the mask
    assert json.loads(dataset.derived["scan"]) == {"operator": "cartesian", "coils": 1}


def test_images_without_their_measurement_and_another_operator_are_refused(tmp_path):
    folder = measured_disks(tmp_path)
    with pytest.raises(UsageError, match="the measurements are cartesian"):
        dataset_reading.open_for_task("reconstruction", [folder], ReadingOptions(), settings={"operator": "parallel"})
    (folder / "measurements" / "c1.npz").unlink()
    with pytest.raises(DatasetError, match="has no measurement"):
        dataset_reading.open_for_task("reconstruction", [folder], ReadingOptions(), settings={"operator": "cartesian"})
