"""Other forms of a volume and of a picture, and faults of the files that hold them."""

from __future__ import annotations

import bz2
import gzip
import io
import struct
import zlib
from collections.abc import Callable
from pathlib import Path

import nibabel
import numpy as np
import PIL.Image
import tifffile

from .image_looks import differ_from, look_at_image
from .planted import Fault, Planted, Random, Volume, Wanted, pick

ORIENTATIONS = ("RAS", "LPS", "LAS", "PIR", "ASR", "IPL", "SAL", "AIL", "PLI", "RPI")
GET_AGAIN = r"again|whole|complete|correct|export"


def reoriented(volume: Volume, rng: Random) -> Volume:
    """The same volume with its voxels in another order."""
    stored = nibabel.Nifti1Image(volume.values, volume.affine)
    wanted = nibabel.orientations.axcodes2ornt(rng.choice(ORIENTATIONS))
    turn = nibabel.orientations.ornt_transform(nibabel.io_orientation(volume.affine), wanted)
    turned = stored.as_reoriented(turn)
    return Volume(np.asarray(turned.dataobj), turned.affine)


def nifti_of(volume: Volume, kind: type = nibabel.Nifti1Image, codes: tuple[int, int] = (1, 1)) -> nibabel.Nifti1Image:
    """A NIfTI image in mm, whose sform and qform have these codes."""
    image = kind(volume.values, volume.affine)
    image.header.set_xyzt_units("mm")
    image.set_sform(volume.affine, codes[0])
    image.set_qform(volume.affine, codes[1])
    return image


def write_endings(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """NIfTI of either version, packed, as a pair, or with bytes in the other order."""
    kind, name = rng.choice(
        (
            (nibabel.Nifti1Image, "v.nii"),
            (nibabel.Nifti2Image, "v.nii"),
            (nibabel.Nifti2Image, "v.nii.gz"),
            (nibabel.Nifti1Pair, "v.hdr"),
            (nibabel.Nifti1Image, "v.nii.gz"),
        )
    )
    image = nifti_of(volume, kind)
    if rng.random() < 0.5:
        header = image.header.as_byteswapped(">")
        image = kind(volume.values.astype(volume.values.dtype.newbyteorder(">")), None, header)
    image.to_filename(folder / name)
    return folder / name, Wanted(("same",))


def write_scaled(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """Other numbers with a slope and an intercept that make the values of them."""
    image = nifti_of(Volume(volume.values.astype(np.float32), volume.affine))
    image.header.set_data_dtype(rng.choice((np.int16, np.uint16, np.int32)))
    image.to_filename(folder / "v.nii.gz")
    return folder / "v.nii.gz", Wanted(("same",), within=(1e-3, 1e-4))


def write_unscaled(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A slope of 0 says that nothing is scaled."""
    nifti_of(volume).to_filename(folder / "v.nii")
    changed = bytearray((folder / "v.nii").read_bytes())
    changed[112:120] = struct.pack("<ff", 0.0, rng.choice((0.0, 5.0)))
    (folder / "v.nii").write_bytes(changed)
    return folder / "v.nii", Wanted(("same",))


def write_units(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """Sizes in micrometres or metres, with the code that says so."""
    factor, unit = rng.choice(((1000.0, "micron"), (0.001, "meter")))
    affine = np.diag([factor, factor, factor, 1]) @ volume.affine
    image = nifti_of(Volume(volume.values, affine))
    image.header.set_xyzt_units(unit)
    image.to_filename(folder / "v.nii.gz")
    return folder / "v.nii.gz", Wanted(("same",), within=(0.01, 1e-6))


def write_qform_only(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """The place stands in the qform alone."""
    nifti_of(volume, codes=(0, 1)).to_filename(folder / "v.nii.gz")
    return folder / "v.nii.gz", Wanted(("same",), within=(0.05, 1e-6))


def write_forms_apart(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """Both forms claim the same kind of place, and lie millimetres apart."""
    image = nifti_of(volume, codes=(1, 1))
    apart = np.array(volume.affine)
    apart[rng.randrange(3), 3] += rng.choice((-1, 1)) * rng.uniform(5, 50)
    image.set_qform(apart, 1)
    image.to_filename(folder / "v.nii.gz")
    return folder / "v.nii.gz", Wanted(("refused",), "form")


def write_no_place(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A matrix that is no place: a zero column, or no number."""
    nifti_of(volume, codes=(1, 0)).to_filename(folder / "v.nii")
    changed = bytearray((folder / "v.nii").read_bytes())
    if rng.random() < 0.5:
        changed[280:284] = struct.pack("<f", float("nan"))
    else:
        changed[280:328] = bytes(48)
    (folder / "v.nii").write_bytes(changed)
    correct = ("header|form", lambda path: nifti_of(volume).to_filename(path))
    return folder / "v.nii", Wanted(("refused",), "", (correct,))


def write_extension(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A comment stands between header and voxels."""
    image = nifti_of(volume)
    image.header.extensions.append(nibabel.nifti1.Nifti1Extension("comment", b"x" * rng.choice((3, 100, 1000))))
    image.to_filename(folder / "v.nii")
    return folder / "v.nii", Wanted(("same",))


def write_members(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A packed file of two members, as pigz and bgzip write them."""
    plain = nifti_of(volume).to_bytes()
    at = rng.randrange(1, len(plain))
    (folder / "v.nii.gz").write_bytes(gzip.compress(plain[:at]) + gzip.compress(plain[at:]))
    return folder / "v.nii.gz", Wanted(("same",))


def write_misnamed(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A file that is named as packed and is not, or the other way round."""
    plain = nifti_of(volume).to_bytes()
    name, content = rng.choice((("v.nii.gz", plain), ("v.nii", gzip.compress(plain))))
    (folder / name).write_bytes(content)
    return folder / name, Wanted(("same", "refused"), "")


def write_single_frame(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A fourth axis of one frame."""
    nifti_of(Volume(volume.values[..., None], volume.affine)).to_filename(folder / "v.nii.gz")
    return folder / "v.nii.gz", Wanted(("same",))


def write_nrrd(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """NRRD in either space, encoding and order of bytes, in one file, or with bytes before the voxels of the second."""
    space, signs = rng.choice((("left-posterior-superior", (-1, -1, 1)), ("right-anterior-superior", (1, 1, 1))))
    affine = np.diag([*signs, 1.0]) @ volume.affine
    encoding, order = rng.choice(("raw", "gzip", "bzip2", "hex", "text")), rng.choice(("little", "big"))
    values = volume.values.astype(volume.values.dtype.newbyteorder("<" if order == "little" else ">"))
    raw = values.tobytes(order="F")
    names = {"u1": "uint8", "i2": "int16", "u2": "uint16", "i4": "int32", "f4": "float", "f8": "double", "i1": "int8"}
    vectors = " ".join(f"({','.join(repr(float(x)) for x in affine[:3, axis])})" for axis in range(3))
    fields = [
        "NRRD0004",
        f"type: {names[f'{values.dtype.kind}{values.dtype.itemsize}']}",
        "dimension: 3",
        f"space: {space}",
        f"sizes: {' '.join(map(str, values.shape))}",
        f"space directions: {vectors}",
        "kinds: domain domain domain",
        f"endian: {order}",
        f"encoding: {encoding}",
        f"space origin: ({','.join(repr(float(x)) for x in affine[:3, 3])})",
    ]
    packed = {
        "raw": lambda: raw,
        "gzip": lambda: gzip.compress(raw),
        "bzip2": lambda: bz2.compress(raw),
        "hex": lambda: raw.hex().encode(),
        "text": lambda: " ".join(map(repr, values.ravel(order="F").tolist())).encode(),
    }[encoding]()
    if rng.random() < 0.5:
        (folder / "v.nrrd").write_bytes("\n".join([*fields, "", ""]).encode() + packed)
        return folder / "v.nrrd", Wanted(("same",))
    skipped = rng.choice((0, 3, 64)) if encoding == "raw" else 0
    (folder / "v.raw").write_bytes(bytes(skipped) + packed)
    skip = [f"byte skip: {rng.choice((skipped, -1)) if encoding == 'raw' else 0}"] if skipped else []
    (folder / "v.nhdr").write_text("\n".join([*fields, *skip, "data file: v.raw", ""]))
    return folder / "v.nhdr", Wanted(("same",))


def write_metaimage(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """MetaImage in one file or two, packed or not, with a header of its own before the voxels, or not."""
    affine = np.diag([-1.0, -1.0, 1.0, 1.0]) @ volume.affine
    steps = np.linalg.norm(affine[:3, :3], axis=0)
    values = volume.values
    names = {
        "u1": "UCHAR", "i2": "SHORT", "u2": "USHORT", "i4": "INT", "f4": "FLOAT", "f8": "DOUBLE", "i1": "CHAR"
    }  # fmt: skip
    packed = rng.random() < 0.5
    order = rng.choice((False, True))
    raw = values.astype(values.dtype.newbyteorder(">" if order else "<")).tobytes(order="F")
    raw = zlib.compress(raw) if packed else raw
    skipped = rng.choice((0, 16, 100)) if not packed else 0
    apart = rng.random() < 0.5
    fields = {
        "ObjectType": "Image",
        "NDims": 3,
        "BinaryData": True,
        "BinaryDataByteOrderMSB": order,
        "CompressedData": packed,
        "TransformMatrix": " ".join(repr(float(x)) for x in (affine[:3, :3] / steps).T.ravel()),
        "Offset": " ".join(repr(float(x)) for x in affine[:3, 3]),
        "ElementSpacing": " ".join(repr(float(x)) for x in steps),
        "DimSize": " ".join(map(str, values.shape)),
        "ElementType": f"MET_{names[f'{values.dtype.kind}{values.dtype.itemsize}']}",
        **({"HeaderSize": rng.choice((skipped, -1))} if apart and skipped else {}),
        "ElementDataFile": "v.raw" if apart else "LOCAL",
    }
    text = "".join(f"{name} = {value}\n" for name, value in fields.items()).encode()
    if apart:
        (folder / "v.raw").write_bytes(bytes(skipped) + raw)
        (folder / "v.mhd").write_bytes(text)
        return folder / "v.mhd", Wanted(("same",))
    (folder / "v.mha").write_bytes(text + raw)
    return folder / "v.mha", Wanted(("same",))


def write_mif(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """MRtrix's format, whose axes may be stored in any order and from either end."""
    steps = np.linalg.norm(volume.affine[:3, :3], axis=0)
    order = rng.sample(range(3), 3)
    signs = [rng.choice("+-") for _ in range(3)]
    stored = volume.values
    for axis, sign in enumerate(signs):
        stored = np.flip(stored, axis) if sign == "-" else stored
    raw = np.transpose(stored, [order.index(place) for place in range(3)])
    kind = {"u1": "UInt8", "i2": "Int16LE", "u2": "UInt16LE", "i4": "Int32LE", "f4": "Float32LE", "i1": "Int8"}
    rows = np.column_stack([volume.affine[:3, :3] / steps, volume.affine[:3, 3]])
    fields = [
        "mrtrix image",
        f"dim: {','.join(map(str, volume.values.shape))}",
        f"vox: {','.join(repr(float(step)) for step in steps)}",
        f"layout: {','.join(f'{sign}{place}' for sign, place in zip(signs, order, strict=True))}",
        f"datatype: {kind[f'{stored.dtype.kind}{stored.dtype.itemsize}']}",
        *(f"transform: {','.join(repr(float(x)) for x in row)}" for row in rows),
        "file: . 1000",
        "END\n",
    ]
    little = raw.astype(raw.dtype.newbyteorder("<"))
    (folder / "v.mif").write_bytes("\n".join(fields).encode().ljust(1000) + little.tobytes(order="F"))
    return folder / "v.mif", Wanted(("same",))


def write_codes_apart(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """The forms claim unlike kinds of place, and lie apart: the sform is taken, and both are there to be seen."""
    image = nifti_of(volume, codes=(rng.choice((2, 4)), 1))
    apart = np.array(volume.affine)
    apart[:3, 3] += rng.uniform(5, 50)
    image.set_qform(apart, 1)
    image.to_filename(folder / "v.nii.gz")
    return folder / "v.nii.gz", Wanted(("same",))


def write_no_unit(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """The header states no unit: mm, as NIfTI-1 has its forms."""
    image = nifti_of(volume)
    image.header.set_xyzt_units("unknown")
    image.to_filename(folder / "v.nii.gz")
    return folder / "v.nii.gz", Wanted(("same",))


def write_odd_slope(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A slope that is no number scales nothing."""
    nifti_of(volume).to_filename(folder / "v.nii")
    changed = bytearray((folder / "v.nii").read_bytes())
    changed[112:120] = struct.pack("<ff", float("nan"), rng.choice((0.0, float("nan"))))
    (folder / "v.nii").write_bytes(changed)
    return folder / "v.nii", Wanted(("same", "refused", "named"), "slope|scl")


def write_wrong_sizes(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """The header states more voxels than the file has."""
    nifti_of(volume).to_filename(folder / "v.nii")
    changed = bytearray((folder / "v.nii").read_bytes())
    changed[46:48] = struct.pack("<h", volume.values.shape[2] + rng.randint(1, 30))
    (folder / "v.nii").write_bytes(changed)
    whole = ("again|whole|header|correct", lambda path: nifti_of(volume).to_filename(path))
    return folder / "v.nii", Wanted(("refused",), "", (whole,))


def write_mgh(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """FreeSurfer's format, packed or not."""
    name = rng.choice(("v.mgz", "v.mgh"))
    values = volume.values.astype(np.float32)
    nibabel.MGHImage(values, volume.affine).to_filename(folder / name)
    return folder / name, Wanted(("same",), within=(0.01, 1e-6))


def write_imagej(volume: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A TIFF of ImageJ, whose size of a pixel has a unit."""
    unit, mm = rng.choice((("micron", 1e-3), ("mm", 1.0), ("cm", 10.0), ("um", 1e-3)))
    size = round(rng.uniform(0.2, 3), 3)
    picture = np.ascontiguousarray(volume.values[:, :, volume.values.shape[2] // 2])
    kept = picture.astype(np.uint16 if picture.dtype.kind in "iu" and picture.min() >= 0 else np.float32)
    tifffile.imwrite(folder / "v.tif", kept, imagej=True, resolution=(1 / size, 1 / size), metadata={"unit": unit})
    return folder / "v.tif", Wanted(("same",), words=f"spacing {size * mm!r}")


VOLUME_FORMS = (
    Fault("another ending, version or order of bytes", write_endings),
    Fault("slope and intercept", write_scaled),
    Fault("a slope of zero", write_unscaled),
    Fault("micrometres and metres", write_units),
    Fault("the qform alone", write_qform_only),
    Fault("forms that disagree", write_forms_apart),
    Fault("no place", write_no_place),
    Fault("a comment before the voxels", write_extension),
    Fault("a packed file of two members", write_members),
    Fault("a file that is not packed as its name says", write_misnamed),
    Fault("a fourth axis of one", write_single_frame),
    Fault("NRRD", write_nrrd),
    Fault("MetaImage", write_metaimage),
    Fault("MGH", write_mgh),
    Fault("MRtrix", write_mif),
    Fault("forms of unlike kinds apart", write_codes_apart),
    Fault("no unit", write_no_unit),
    Fault("a slope that is no number", write_odd_slope),
    Fault("more voxels stated than there are", write_wrong_sizes),
)


def save(picture: np.ndarray, path: Path, rng: Random, **how: object) -> Path:
    """A picture as Pillow writes it."""
    PIL.Image.fromarray(picture).save(path, **how)
    return path


def write_lossless(picture: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """Another format that loses nothing."""
    name, how = rng.choice(
        (
            ("p.png", {}),
            ("p.bmp", {}),
            ("p.webp", {"lossless": True, "exact": True}),
            ("p.jp2", {"irreversible": False}),
        )
    )
    values = picture.values
    if name == "p.webp" and values.ndim == 2:
        name, how = "p.png", {"compress_level": rng.randrange(10)}
    return save(values, folder / name, rng, **how), Wanted(("same",))


def write_tiff(picture: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A TIFF in tiles or strips, packed or not, in either order of bytes."""
    how = {
        "compression": rng.choice((None, "lzw", "deflate", "packbits")),
        "byteorder": rng.choice("<>"),
        **rng.choice(({}, {"tile": (16, 16)}, {"rowsperstrip": 3})),
    }
    if how["compression"] in ("lzw", "deflate") and rng.random() < 0.5:
        how["predictor"] = True
    photometric = "rgb" if picture.values.ndim == 3 else "minisblack"
    tifffile.imwrite(folder / "p.tif", picture.values, photometric=photometric, **how)
    return folder / "p.tif", Wanted(("same",))


def write_deep(picture: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A grey picture of 16 bits, whose values are 257 times those of 8."""
    grey = picture.values if picture.values.ndim == 2 else picture.values[..., 0]
    deep = grey.astype(np.uint16) * 257
    name = rng.choice(("p.png", "p.tif"))
    if name == "p.png":
        PIL.Image.fromarray(deep).save(folder / name)
    else:
        tifffile.imwrite(folder / name, deep)
    return folder / name, Wanted(("same",), words="times 257")


def write_palette(picture: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A palette of colours in place of the colours."""
    values = picture.values if picture.values.ndim == 3 else np.repeat(picture.values[..., None], 3, axis=-1)
    few = PIL.Image.fromarray(values).quantize(32, dither=PIL.Image.Dither.NONE)
    few.save(folder / "p.png")
    return folder / "p.png", Wanted(("same",), words="palette")


def write_opaque(picture: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """An alpha channel that is opaque everywhere."""
    values = picture.values if picture.values.ndim == 3 else np.repeat(picture.values[..., None], 3, axis=-1)
    opaque = np.concatenate([values, np.full((*values.shape[:2], 1), 255, np.uint8)], axis=-1)
    return save(opaque, folder / "p.png", rng), Wanted(("same",), words="opaque")


def write_turned(picture: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A photograph that EXIF turns upright."""
    turn, stored = rng.choice(
        (
            (3, picture.values[::-1, ::-1]),
            (6, np.rot90(picture.values)),
            (8, np.rot90(picture.values, -1)),
            (2, picture.values[:, ::-1]),
        )
    )
    exif = PIL.Image.Exif()
    exif[0x0112] = turn
    return save(np.ascontiguousarray(stored), folder / "p.png", rng, exif=exif), Wanted(("same",))


def write_other_name(picture: Volume, folder: Path, rng: Random) -> tuple[Path, Wanted]:
    """A picture whose name says another format."""
    held = io.BytesIO()
    kind, name = rng.choice((("PNG", "p.jpg"), ("BMP", "p.png"), ("PNG", "p.bmp")))
    PIL.Image.fromarray(picture.values).save(held, kind)
    (folder / name).write_bytes(held.getvalue())
    return folder / name, Wanted(("same",))


PICTURE_FORMS = (
    Fault("another format without a loss", write_lossless),
    Fault("TIFF in tiles, strips, packed", write_tiff),
    Fault("sixteen bits", write_deep),
    Fault("a palette", write_palette),
    Fault("an opaque alpha channel", write_opaque),
    Fault("turned by EXIF", write_turned),
    Fault("a name of another format", write_other_name),
)


def cut_voxels(path: Path, rng: Random) -> Wanted:
    """The file ends early."""
    held = path.with_suffix(".img") if path.suffix == ".hdr" else path
    held = path.with_name("v.raw") if path.suffix in (".nhdr", ".mhd") else held
    content = held.read_bytes()
    held.write_bytes(content[: int(len(content) * rng.uniform(0.2, 0.9))])
    return Wanted(("refused",), "", ((GET_AGAIN, lambda _: put(held, content)),))


def put(path: Path, content: bytes) -> None:
    """The file as it was."""
    path.write_bytes(content)


def add_bytes(path: Path, rng: Random) -> Wanted:
    """Zeros follow the voxels."""
    content = path.read_bytes()
    path.write_bytes(content + bytes(rng.choice((1, 8, 512))))
    mend = (f"{GET_AGAIN}|behind|surplus|remove", lambda _: put(path, content))
    return Wanted(("same", "named", "refused"), "", (mend,))


def add_junk_beside(path: Path, rng: Random) -> Wanted:
    """Files that systems leave behind lie beside it."""
    for name in (".DS_Store", f"._{path.name}", "Thumbs.db"):
        (path.parent / name).write_bytes(rng.randbytes(64))
    return Wanted(("same",))


def is_voxel_file(path: Path) -> bool:
    """Whether bytes that are missing at the end are voxels."""
    return path.suffix not in (".jpg", ".png", ".webp", ".jp2", ".bmp", ".tif")


IN_FILE = (
    Fault("the file cut", cut_voxels),
    Fault("bytes behind the voxels", add_bytes, is_voxel_file),
    Fault("junk beside the file", add_junk_beside),
)
Writer = Callable[[Volume, Path, Random], tuple[Path, Wanted]]


def plant_volume(source: str, volume: Volume, folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """A volume in another form, half of them in another order of voxels, and a third with another fault."""
    stored = reoriented(volume, rng) if rng.random() < 0.5 else volume
    form = rng.choice(VOLUME_FORMS)
    path, wanted = form.plant(stored, folder, rng)
    return damaged([form], source, path, wanted, volume, rng)


def plant_picture(source: str, picture: Volume, folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """A picture in another form, in a third of the draws with another fault."""
    form = rng.choice(PICTURE_FORMS)
    path, wanted = form.plant(picture, folder, rng)
    values = picture.values
    if wanted.words == "times 257":
        values = (values if values.ndim == 2 else values[..., 0]).astype(np.uint16) * 257
    if wanted.words == "palette":
        values = np.asarray(PIL.Image.open(path).convert("RGB"))
    if wanted.words == "opaque" and values.ndim == 2:
        values = np.repeat(values[..., None], 3, axis=-1)
    return damaged([form], source, path, Wanted(wanted.right), Volume(values), rng)


def plant_imagej(source: str, volume: Volume, folder: Path, rng: Random) -> tuple[list[Fault], Planted]:
    """A TIFF of ImageJ with the size of its pixels."""
    path, wanted = write_imagej(volume, folder, rng)
    size = float(wanted.words.split()[1])
    truth = Volume(np.asarray(tifffile.imread(path)), None, (size, size))
    return damaged([Fault("sizes of ImageJ", write_imagej)], source, path, Wanted(("same",)), truth, rng)


def damaged(
    faults: list[Fault], source: str, path: Path, wanted: Wanted, truth: Volume, rng: Random
) -> tuple[list[Fault], Planted]:
    """The file with another fault in a third of the draws."""
    if rng.random() < 0.35 and wanted.right == ("same",):
        fault = pick(IN_FILE, path, rng)
        assert fault is not None
        wanted = wanted.beside(fault.plant(path, rng))
        faults = [*faults, fault]
    return faults, Planted(source, path, wanted, look_at_image, differ_from(truth))
