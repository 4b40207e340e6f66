"""MR spectra of one voxel as series in ppm."""

from __future__ import annotations

import json
from pathlib import Path

import nibabel
import numpy as np
import pydicom
import pytest
from pydicom.dataset import FileDataset, FileMetaDataset
from pydicom.uid import ExplicitVRLittleEndian, generate_uid

from hilum.errors import FormatError, GeometryError
from hilum.files import file_formats

POINTS, WIDTH, MHZ = 1024, 2000.0, 123.2
NAA = 2.01
TIMES = np.arange(POINTS) / WIDTH
# Water, and half as much N-acetyl-aspartate at 2.01 ppm; frequencies above the transmitter's turn counterclockwise.
SIGNAL = np.exp(-TIMES / 0.05) * (1 + 0.5 * np.exp(2j * np.pi * (NAA - 4.65) * MHZ * TIMES))


def written_nifti(path: Path, signal: np.ndarray, **stated) -> Path:
    image = nibabel.Nifti2Image(signal.astype(np.complex64), np.eye(4))
    image.header["pixdim"][4] = 1 / WIDTH
    image.header.set_xyzt_units("mm", "sec")
    image.header["intent_name"] = b"mrs_v0_9"
    text = json.dumps({"SpectrometerFrequency": [MHZ], "ResonantNucleus": ["1H"], **stated})
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension(44, text.encode()))
    nibabel.save(image, path)
    return path


def written_dicom(path: Path, points: np.ndarray, domain: str, kind: str = "COMPLEX", **changed) -> Path:
    made = FileDataset(str(path), {}, file_meta=FileMetaDataset(), preamble=bytes(128))
    made.file_meta.TransferSyntaxUID = ExplicitVRLittleEndian
    made.SOPClassUID = made.file_meta.MediaStorageSOPClassUID = "1.2.840.10008.5.1.4.1.1.4.2"
    made.SOPInstanceUID = made.file_meta.MediaStorageSOPInstanceUID = generate_uid()
    made.StudyInstanceUID, made.SeriesInstanceUID, made.Modality = generate_uid(), generate_uid(), "MR"
    made.Rows = made.Columns = made.NumberOfFrames = made.DataPointRows = 1
    made.DataPointColumns, made.DataRepresentation, made.SignalDomainColumns = POINTS, kind, domain
    made.SpectralWidth, made.TransmitterFrequency, made.ChemicalShiftReference = WIDTH, MHZ, 4.65
    made.ResonantNucleus = "1H"
    flat = np.stack([points.real, points.imag], axis=-1) if kind == "COMPLEX" else points.real
    made.SpectroscopyData = flat.astype("<f4").tobytes()
    for name, value in changed.items():
        if value is None:
            delattr(made, name)
        else:
            setattr(made, name, value)
    pydicom.dcmwrite(path, made, enforce_file_format=True)
    return path


def peaks_of(path: Path) -> list[float]:
    """ppm of the two highest peaks, the higher first."""
    image = file_formats.read(path, part="magnitude")
    assert (image.geometry.unit, image.modality, image.data.shape) == ("ppm", "MR", (1, POINTS))
    ppm = image.geometry.to_world(np.arange(POINTS)[:, None])[:, 0]
    assert (np.diff(ppm) > 0).all()
    values = image.data[0].copy()
    first = int(values.argmax())
    values[np.abs(ppm - ppm[first]) < 1] = 0
    return [float(ppm[first]), float(ppm[int(values.argmax())])]


@pytest.mark.parametrize("kind", ["nifti", "dicom in time", "dicom in frequency"])
def test_the_peaks_of_water_and_naa_lie_at_their_chemical_shifts(kind, tmp_path):
    spectrum = np.fft.fftshift(np.fft.fft(SIGNAL))
    path = {
        "nifti": lambda: written_nifti(tmp_path / "s.nii.gz", SIGNAL.conj().reshape(1, 1, 1, -1)),
        "dicom in time": lambda: written_dicom(tmp_path / "s.dcm", SIGNAL, "TIME"),
        "dicom in frequency": lambda: written_dicom(tmp_path / "s.dcm", spectrum[::-1], "FREQUENCY"),
    }[kind]()
    assert peaks_of(path) == pytest.approx([4.65, NAA], abs=WIDTH / POINTS / MHZ)


def test_edits_are_channels_and_a_real_spectrum_needs_no_part(tmp_path):
    twice = np.stack([SIGNAL.conj(), 2 * SIGNAL.conj()], axis=-1).reshape(1, 1, 1, POINTS, 2)
    path = written_nifti(tmp_path / "e.nii.gz", twice, dim_5="DIM_EDIT")
    image = file_formats.read(path, part="magnitude")
    np.testing.assert_allclose(image.data[1], 2 * image.data[0], rtol=1e-4)
    assert image.channels == ("edit 1", "edit 2")
    real = written_dicom(tmp_path / "r.dcm", np.abs(np.fft.fftshift(np.fft.fft(SIGNAL)))[::-1], "FREQUENCY", "REAL")
    assert file_formats.read(real).data.shape == (1, POINTS)


WRONG_SPECTRA = {
    "without frequency": ({"TransmitterFrequency": None}, FormatError, "frequency of the transmitter, so that ppm"),
    "several voxels": ({"Rows": 2}, GeometryError, "1 x 2 x 1 voxels"),
    "cut short": ({"SpectroscopyData": bytes(64)}, FormatError, "16 numbers where 1024 points"),
    "two axes": ({"DataPointRows": 2}, FormatError, "two spectral axes"),
    "no domain": ({"SignalDomainColumns": None}, FormatError, "no stated domain"),
}


@pytest.mark.parametrize("wrong", sorted(WRONG_SPECTRA))
def test_a_spectrum_whose_ppm_cannot_be_told_is_refused(wrong, tmp_path):
    changed, error, words = WRONG_SPECTRA[wrong]
    with pytest.raises(error, match=words):
        file_formats.read(written_dicom(tmp_path / "s.dcm", SIGNAL, "TIME", **changed), part="real")


def test_a_nifti_spectrum_that_leaves_something_open_is_refused(tmp_path):
    repeats = np.broadcast_to(SIGNAL.conj()[:, None], (1, 1, 1, POINTS, 3)).copy()
    with pytest.raises(FormatError, match="3 points of DIM_DYN were not combined"):
        file_formats.read(written_nifti(tmp_path / "d.nii.gz", repeats, dim_5="DIM_DYN"), part="real")
    path = written_nifti(tmp_path / "f.nii.gz", SIGNAL.reshape(1, 1, 1, -1), SpectrometerFrequency=None)
    with pytest.raises(FormatError, match="ppm cannot be told"):
        file_formats.read(path, part="real")
    with pytest.raises(FormatError, match="complex values"):
        file_formats.read(written_nifti(tmp_path / "c.nii.gz", SIGNAL.reshape(1, 1, 1, -1)))
