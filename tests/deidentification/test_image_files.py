"""Images of other formats: voxels and geometry pass, and nothing else."""

from __future__ import annotations

from io import BytesIO

import imagecodecs
import nibabel
import numpy as np
import pytest
import SimpleITK
import tifffile
from PIL import Image as PilImage
from PIL.PngImagePlugin import PngInfo

import hilum
from hilum.deidentification import coded_images, keyed_names
from hilum.errors import FormatError

WHO = b"Quittenbaum"


@pytest.fixture(autouse=True)
def key(monkeypatch):
    monkeypatch.setenv(keyed_names.VARIABLE, "0f" * 32)


def write_all(folder):
    """An image of each format with a name in it."""
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    affine = np.diag([1.0, 2.0, 3.0, 1.0])
    image = nibabel.Nifti1Image(voxels, affine)
    image.header["descrip"], image.header["db_name"] = b"of Quittenbaum", WHO
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"of Quittenbaum"))
    nibabel.save(image, folder / "scan_1.nii.gz")
    other = SimpleITK.GetImageFromArray(voxels.transpose(2, 1, 0))
    other.SetSpacing((1.0, 2.0, 3.0))
    other.SetMetaData("PatientName", WHO.decode())
    for name in ("scan_2.nrrd", "scan_3.mha", "scan_4.mhd"):
        SimpleITK.WriteImage(other, folder / name)
    picture = np.arange(120, dtype=np.uint8).reshape(10, 12)
    tifffile.imwrite(folder / "scan_5.tiff", picture, description="of Quittenbaum", software="Quittenbaum")
    note = PngInfo()
    note.add_text("Comment", "of Quittenbaum")
    PilImage.fromarray(picture).save(folder / "scan_6.png", pnginfo=note)
    exif = PilImage.Exif()
    exif[0x010E] = "of Quittenbaum"
    PilImage.fromarray(picture).save(folder / "scan_7.jpg", exif=exif, comment=WHO)
    (folder / "notes.txt").write_text("of Quittenbaum")
    return voxels, picture


def test_only_voxels_and_geometry_pass(tmp_path):
    (tmp_path / "in").mkdir()
    voxels, picture = write_all(tmp_path / "in")
    rows = {row.source: row for row in hilum.deidentify(tmp_path / "in", out=tmp_path / "out").rows}
    assert rows["notes.txt"].refused
    written = {path for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert written == {tmp_path / "out" / row.output for row in rows.values() if row.output}
    for path in written:
        content = path.read_bytes()
        assert WHO not in content + (imagecodecs.gzip_decode(content) if path.suffix == ".gz" else b"")
        assert path.parent.name == path.name.partition("_")[0]
    for name in ("scan_1.nii.gz", "scan_2.nrrd", "scan_3.mha", "scan_4.mhd"):
        image = hilum.read(tmp_path / "out" / rows[name].output)
        assert np.array_equal(image.data[0], hilum.read(tmp_path / "in" / name).data[0])
        assert image.geometry.equals(hilum.read(tmp_path / "in" / name).geometry, 1e-6)
    assert rows["scan_4.raw"].output == rows["scan_4.mhd"].output  # the voxels of that header
    assert voxels.size == 60
    for name in ("scan_5.tiff", "scan_6.png"):
        assert np.array_equal(hilum.read(tmp_path / "out" / rows[name].output).data[0], picture)


def coded(**options: object) -> bytes:
    """A JPEG of colours."""
    file = BytesIO()
    picture = np.random.default_rng(0).integers(0, 255, (40, 50, 3), dtype=np.uint8)
    PilImage.fromarray(picture).save(file, "JPEG", **options)
    return file.getvalue()


@pytest.mark.parametrize("progressive", [False, True])
def test_a_jpeg_keeps_its_coded_image_to_the_byte(progressive):
    bare = coded(progressive=progressive)
    noted = coded(progressive=progressive, comment=WHO, exif=b"Exif\0\0" + WHO)
    assert coded_images.strip_jpeg(noted + b"behind it: Quittenbaum", "a.jpg") == bare
    with pytest.raises(FormatError, match="cut short"):
        coded_images.strip_jpeg(noted[:-20], "a.jpg")


def write_hidden(folder):
    """Images with a name behind them, in private tags, further pages, extensions, chunks and comments."""
    picture = np.arange(120, dtype=np.uint8).reshape(10, 12)
    colour = np.random.default_rng(0).integers(0, 255, (512, 512, 3), dtype=np.uint8)
    text = WHO.decode()
    private = [(65000, 2, 0, text, True), (315, 2, 0, text, True), (700, 1, 11, WHO, True), (34377, 7, 11, WHO, True)]
    tifffile.imwrite(folder / "tags.tiff", picture, extratags=private)
    with (folder / "tags.tiff").open("ab") as file:
        file.write(WHO)
    named = {"axes": "CYX", "Channel": {"Name": [text, "a", "b"]}, "Name": text}
    tifffile.imwrite(folder / "channels.ome.tiff", np.zeros((3, 10, 12), np.uint8), ome=True, metadata=named)
    of_imagej = {"axes": "ZYX", "Info": text, "Labels": [text] * 4, "spacing": 2.0, "unit": text}
    tifffile.imwrite(folder / "imagej.tif", np.zeros((4, 10, 12), np.uint16), imagej=True, metadata=of_imagej)
    with tifffile.TiffWriter(folder / "slide.tif") as slide:  # a level of tissue, and the photograph of its label
        tiles = {"tile": (128, 128), "photometric": "rgb"}
        slide.write(colour, **tiles, subifds=1, resolution=(20000, 20000), resolutionunit=3)
        slide.write(colour[::4, ::4], **tiles, subfiletype=1)
        slide.write(np.frombuffer(WHO.ljust(60 * 80 * 3), np.uint8).reshape(60, 80, 3), photometric="rgb")
    exif = PilImage.Exif()
    exif.get_ifd(0x8769)[0x927C] = b"note of a maker: " + WHO
    PilImage.fromarray(picture).save(folder / "chunks.png", exif=exif)
    with (folder / "chunks.png").open("ab") as file:
        file.write(WHO)
    previews = [PilImage.fromarray(colour)]
    PilImage.fromarray(colour).save(folder / "previews.jpg", "MPO", save_all=True, append_images=previews)
    PilImage.fromarray(colour).convert("CMYK").save(folder / "print.jpg", comment=WHO, icc_profile=bytes(100) + WHO)
    voxels = np.arange(60, dtype=np.int16).reshape(3, 4, 5)
    image = nibabel.Nifti2Image(voxels, np.eye(4))
    for keyword in ("descrip", "aux_file", "intent_name"):
        image.header[keyword] = WHO
    nibabel.save(image, folder / "header.nii")
    with (folder / "header.nii").open("ab") as file:
        file.write(WHO)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), folder / "keys.nrrd")
    head, _, rest = (folder / "keys.nrrd").read_bytes().partition(b"\n\n")
    (folder / "keys.nrrd").write_bytes(head + b"\n# " + WHO + b"\ncontent: " + WHO + b"\n\n" + rest)
    SimpleITK.WriteImage(SimpleITK.GetImageFromArray(voxels), folder / "comment.mha")
    content = (folder / "comment.mha").read_bytes().replace(b"NDims", b"Comment = " + WHO + b"\nNDims", 1)
    (folder / "comment.mha").write_bytes(content + WHO)
    nibabel.save(nibabel.MGHImage(voxels.astype(np.float32), np.eye(4)), folder / "brain.mgz")
    for name in ("raw.h5", "brain.mnc", "film.mp4", "table.csv"):
        (folder / name).write_bytes(WHO)


def text_of(path):
    """The bytes of an image, and what its streams and tags hold."""
    content = path.read_bytes()
    if path.suffix == ".gz":
        return content + imagecodecs.gzip_decode(content)
    if path.suffix != ".tiff":
        return content
    with tifffile.TiffFile(path) as opened:
        pages = [page for series in opened.series for level in series.levels for page in level.pages]
        return b"".join(
            [content, *(str(page.keyframe.tags.values()).encode() + page.asarray().tobytes() for page in pages)]
        )


def test_nothing_passes_from_behind_pixels_or_from_private_places(tmp_path):
    (tmp_path / "in").mkdir()
    write_hidden(tmp_path / "in")
    rows = hilum.deidentify(tmp_path / "in", out=tmp_path / "out").rows
    refused = {row.source for row in rows if row.refused}
    assert refused == {"brain.mgz", "raw.h5", "brain.mnc", "film.mp4", "table.csv"}
    leaks = [row.source for row in rows if row.output and WHO in text_of(tmp_path / "out" / row.output)]
    assert (leaks, len(rows)) == ([], 15)


def test_files_are_called_by_patient_and_number(tmp_path):
    (tmp_path / "in").mkdir()
    for name in ("patient01_a", "patient01_b", "patient02_a"):
        PilImage.fromarray(np.zeros((8, 8), np.uint8)).save(tmp_path / "in" / f"{name}.png")
    outputs = [row.output for row in hilum.deidentify(tmp_path / "in", out=tmp_path / "out").rows]
    (first, a), (second, b), (third, c) = (output.split("/") for output in outputs)
    assert first == second != third
    assert (a, b, c) == (f"{first}_1.png", f"{first}_2.png", f"{third}_1.png")


@pytest.mark.parametrize("turn", range(1, 9))
@pytest.mark.parametrize("mode", ["RGB", "L"])
def test_a_photograph_is_upright_before_and_after(tmp_path, turn, mode):
    pixels = np.zeros((40, 64, 3), np.uint8)
    pixels[:20, :32], pixels[20:, 32:] = (220, 20, 20), (20, 220, 20)
    exif = PilImage.Exif()
    exif[0x0112], exif[0x010E] = turn, WHO.decode()
    path = tmp_path / "photo.jpg"
    PilImage.fromarray(pixels).convert(mode).save(path, exif=exif, quality=95)
    [row] = hilum.deidentify(path, out=tmp_path / "out").rows
    written = tmp_path / "out" / row.output
    assert WHO not in written.read_bytes()
    assert np.array_equal(hilum.read(written).data, hilum.read(path).data)
    with PilImage.open(written) as opened:  # as other programs read it
        assert dict(opened.getexif()) == ({} if turn == 1 else {0x0112: turn})


def test_a_table_beside_images_is_refused_with_its_columns_that_say_who_somebody_is(tmp_path):
    (tmp_path / "in").mkdir()
    (tmp_path / "in" / "list.csv").write_text("image;age;Nachname;Geburtsdatum\na.png;50;Quittenbaum;1937-04-22\n")
    [row] = hilum.deidentify(tmp_path / "in", out=tmp_path / "out").rows
    assert "Nachname, Geburtsdatum say who somebody is" in row.refused
