"""Identity that is left, text that stays readable, and the time for a large series, beside dicom-anonymizer and deid.

    python bench/deidentify.py --record

Right actions are counted by kind, as the MIDI-B challenge does (arXiv:2507.23608), over the corpus with planted people
in six character sets; their words are searched for in every byte of what is written. Text that is burned in is written
by us in four colours on ultrasound images and radiographs, and tesseract judges what is left of it. Needs tesseract,
dciodvfy and pip for the other two programs.
"""

from __future__ import annotations

import json
import os
import random
import subprocess
import sys
import tempfile
import time
from collections import Counter, defaultdict
from contextlib import suppress
from difflib import SequenceMatcher
from pathlib import Path
from typing import Any

import imagecodecs
import matplotlib as mpl
import numpy as np
import pydicom
from beside import PeerError, arguments, peer, record
from environment import HERE, ROOT
from PIL import Image, ImageDraw, ImageFont
from pydicom.encaps import encapsulate
from pydicom.uid import JPEGBaseline8Bit, UID_dictionary

sys.path.insert(0, str(ROOT / "tests"))
import planted_identities
from isocenter.deidentification import confidentiality_profile
from planted_identities import IDENTITIES
from written_dicom import write_slice

DATA = Path(os.environ.get("ISOCENTER_TEST_DATA", ROOT.parent / "shared" / "data"))
KEY = "0f" * 32
# What every program states of its own, and overlays and curves, which go as wholes.
OF_THE_METHOD = ("DeidentificationMethod", "PatientIdentityRemoved", "LongitudinalTemporalInformationModified")
GRAPHICS = (0x50, 0x60)
KINDS = ("removed", "replaced", "dates", "UIDs", "text kept", "pixels kept")
WORDS = [
    "Quittenbaum Ottilie",
    "DOE^JOHN",
    "ID 4471903",
    "1937-04-22",
    "Nguyen Van",
    "MRN:00812345",
    "St. Anna Hospital",
    "Acc 778123",
]
COLOURS = ("white", "grey", "coloured", "dark on light")
SYNTAXES = ("native", "JPEG", "palette")


def main() -> None:
    given = arguments(__doc__).parse_args()
    os.environ["ISOCENTER_DEIDENTIFY_KEY"] = KEY
    with tempfile.TemporaryDirectory() as room:
        rows = on_corpus(Path(room), 12 if given.small else None)
        text = on_text(Path(room), 8 if given.small else 200, 4 if given.small else 60)
        speed = [on_series(Path(room), 20 if given.small else 1000, options) for options in ("", "clean-pixels")]
    heads = list(rows[0])
    lines = [heads, ["---"] * len(heads), *([row.get(head, "") for head in heads] for row in rows)]
    table = "\n".join(f"| {' | '.join(map(str, line))} |" for line in lines)
    table += "\n\n" + "\n".join(
        f"- {name}: {value}" for name, value in (*text.items(), *(("speed", one) for one in speed))
    )
    print(table)
    if given.record:
        record("deidentify", "Identity that is left", table, {"rows": rows, "text": text, "speed": speed})


def run(inputs: Path, out: Path, options: str) -> tuple[list[dict[str, Any]], Any]:
    """The rows of the report, and the time and memory that it took."""
    code = "import sys; from isocenter.cli import main; sys.argv[0] = 'isocenter'; main()"
    words = ["deidentify", str(inputs), "--out", str(out), *(["--options", options] if options else [])]
    silent = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    with subprocess.Popen([sys.executable, "-c", code, *words], **silent) as one:
        _, status, taken = os.wait4(one.pid, 0)
        one.returncode = os.waitstatus_to_exitcode(status)
    report = out.with_name(f"{out.name}.private") / "report.json"
    return json.loads(report.read_text())["rows"], taken


def on_corpus(room: Path, most: int | None) -> list[dict[str, Any]]:
    """Shares of right actions of three programs on planted files, and what errors they add."""
    flat = room / "flat"
    flat.mkdir()
    sources = sorted(
        [*(DATA / "dicom" / "files").glob("*.dcm"), *sorted((DATA / "dicom" / "series").rglob("*.dcm"))[::6]]
    )
    people = {}
    for n, source in enumerate(sources[:most]):
        name = f"{n:03d}.dcm"
        try:
            planted_identities.write_planted(source, flat / name, IDENTITIES[n % len(IDENTITIES)])
        except Exception:
            (flat / name).unlink(missing_ok=True)
            continue
        people[name] = IDENTITIES[n % len(IDENTITIES)]
    ours = {row["source"]: row["output"] for row in run(flat, room / "ours", "shift-dates")[0]}
    rows = [{"program": "isocenter"} | scored(flat, {n: room / "ours" / o for n, o in ours.items() if o}, people)]
    for name in ("dicom-anonymizer", "deid"):
        try:
            python = peer("deidentify")
            side = HERE / "sides" / "deidentify_peer.py"
            subprocess.run(
                [str(python), str(side), name, str(flat), str(room / name)], check=False, capture_output=True
            )
            files = {path.name: path for path in (room / name).glob("*.dcm")}
            rows.append({"program": name} | scored(flat, files, people))
        except PeerError as error:
            rows.append({"program": name, "files": f"not measured: {error}"})
        print(rows[-1], flush=True)
    return rows


def scored(flat: Path, written: dict[str, Path], people: dict[str, Any]) -> dict[str, Any]:
    right, count, leaks, errors = Counter[str](), Counter[str](), 0, 0
    new_uids = defaultdict[str, set[str]](set)
    for name, path in written.items():
        before = pydicom.dcmread(flat / name, force=True)
        try:
            after = pydicom.dcmread(path, force=True)
            judged = list(judge(before, after, people[name], new_uids))
        except Exception:
            judged = [(kind, False) for kind in KINDS]
        for kind, is_right in judged:
            count[kind] += 1
            right[kind] += is_right
        leaks += bool(people[name].traces(path.read_bytes()))
        errors += bool(added_errors(flat / name, path))
    count["UIDs"] += len(new_uids)
    right["UIDs"] += sum(len(one) == 1 for one in new_uids.values())
    share = {kind: f"{100 * right[kind] / max(count[kind], 1):.2f} %" for kind in KINDS}
    whole = f"{100 * sum(right.values()) / max(sum(count.values()), 1):.2f} %"
    return {"files": len(written), "right": whole, **share, "files with a trace": leaks, "with new errors": errors}


def judge(before: pydicom.Dataset, after: pydicom.Dataset, who: Any, new_uids: dict[str, set[str]]) -> Any:
    """(kind, whether it is right) of each element of the top level."""
    for element in readable(before):
        tag, vr = int(element.tag), element.VR
        if element.keyword in OF_THE_METHOD or tag >> 24 in GRAPHICS or str(element.value) in UID_dictionary:
            continue
        row = confidentiality_profile.row_of(tag)
        later = after.get(element.tag)
        text = "" if later is None or later.value is None else str(later.value)
        if element.keyword == "PixelData":
            yield "pixels kept", later is not None and later.value == element.value
        elif element.tag.is_private:
            yield "removed", later is None
        elif vr == "UI" and row is not None and "U" in row["basicProfile"] and element.value:
            new_uids[str(element.value)].add(text)
            yield "UIDs", text != str(element.value) and bool(text)
        elif row is not None and row["rtnLongModifDatesOpt"] and vr in ("DA", "DT") and element.value:
            yield "dates", text != str(element.value)
        elif row is not None and vr in planted_identities.LONG and element.value:
            is_gone = not text or (text != str(element.value) and not who.traces(text.encode()))
            yield ("removed" if row["basicProfile"] == "X" else "replaced"), is_gone
        elif row is None and vr in ("CS", "LO", "SH", "DS", "IS", "US") and not who.traces(str(element.value).encode()):
            yield "text kept", later is not None and later.value == element.value


def readable(dataset: pydicom.Dataset) -> Any:
    """The elements that the library can read; what it cannot read in a source is not counted."""
    for key in list(dataset.keys()):
        with suppress(Exception):
            yield dataset[key]


def added_errors(before: Path, after: Path) -> set[str]:
    found = []
    for path in (before, after):
        done = subprocess.run(["dciodvfy", str(path)], capture_output=True, text=True, errors="replace", check=False)
        found.append({line.rpartition("<")[0] for line in done.stderr.splitlines() if line.startswith("Error")})
    return found[1] - found[0]


def on_text(room: Path, texts: int, clean: int) -> dict[str, Any]:
    """What tesseract still reads of planted texts, and what becomes of pictures without text."""
    draw, folder = random.Random(1), room / "text"  # noqa: S311 - no secret
    folder.mkdir()
    plain = [p for p in sorted((DATA / "ultrasound" / "images").rglob("*.png")) if "mask" not in p.name]
    plain += sorted((DATA / "chest_xray").rglob("*.jp*g"))
    places = {}
    for n in range(texts):
        picture = Image.open(draw.choice(plain)).convert("RGB")
        words = WORDS[n % len(WORDS)]
        box = write_words(picture, words, COLOURS[n % 4], draw)
        name = f"text{n:03d}.dcm"
        write_object(folder / name, np.asarray(picture), SYNTAXES[n % 3], ("US", "CR", "SC")[n % 3])
        places[name] = words, box
    bare = [*sorted((DATA / "mri" / "cardiac_sunnybrook").rglob("*.png")), *sorted((DATA / "chasedb1").glob("*.jpg"))]
    bare = draw.sample(bare, min(clean, len(bare)))
    for n, path in enumerate(bare):
        write_object(folder / f"clean{n:03d}.dcm", np.asarray(Image.open(path).convert("RGB")), "native", "SC")
    rows = {row["source"]: row for row in run(folder, room / "text-out", "clean-pixels")[0]}
    written = {name: room / "text-out" / row["output"] for name, row in rows.items() if row["output"]}
    readable = [name for name, (words, box) in places.items() if name in written and reads(written[name], words, box)]
    seen_before = sum(reads(folder / name, words, box) for name, (words, box) in places.items())
    held = sum(name not in written for name in places)
    disturbed = sum(row["text"] > 0 or row["output"] is None for name, row in rows.items() if name.startswith("clean"))
    return {
        f"texts that tesseract read before, of {texts}": seen_before,
        "readable afterwards": len(readable),
        "held back": held,
        f"clean pictures disturbed or held back, of {len(bare)}": disturbed,
    }


def write_words(picture: Image.Image, words: str, colour: str, draw: random.Random) -> tuple[int, int, int, int]:
    height = draw.choice((10, 12, 16, 20, 28, 40))
    fonts = Path(mpl.get_data_path()) / "fonts" / "ttf"
    while True:
        font = ImageFont.truetype(str(fonts / draw.choice(("DejaVuSans.ttf", "DejaVuSansMono.ttf"))), int(1.3 * height))
        pen = ImageDraw.Draw(picture)
        left, top, right, bottom = pen.textbbox((0, 0), words, font=font)
        if right - left < picture.width - 12 or height <= 10:
            break
        height -= 4
    x = draw.randint(4, max(5, picture.width - (right - left) - 8))
    y = draw.randint(4, max(5, picture.height - (bottom - top) - 16))
    under = float(np.asarray(picture)[y : y + bottom, x : x + right - left].mean())
    if colour == "dark on light":
        pen.rectangle((x - 4, y - 4, x + right + 4, y + bottom + 6), fill=(220, 220, 220))
    grey = int(under + 90) if under < 150 else int(under - 90)
    inks = {"white": (255,) * 3, "grey": (grey,) * 3, "coloured": (0, 220, 0), "dark on light": (20,) * 3}
    pen.text((x, y), words, font=font, fill=inks[colour])
    return pen.textbbox((x, y), words, font=font)


def write_object(path: Path, picture: np.ndarray, syntax: str, modality: str) -> None:
    write_slice(path, np.zeros((2, 2), np.int16), sop_class="1.2.840.10008.5.1.4.1.1.7", PatientID=path.stem)
    dataset = pydicom.dcmread(path)
    dataset.Modality, dataset.Rows, dataset.Columns = modality, *picture.shape[:2]
    dataset.BitsAllocated, dataset.BitsStored, dataset.HighBit, dataset.PixelRepresentation = 8, 8, 7, 0
    dataset.SamplesPerPixel, dataset.PhotometricInterpretation, dataset.PlanarConfiguration = 3, "RGB", 0
    content = np.ascontiguousarray(picture).tobytes()
    if syntax == "palette":
        image = Image.fromarray(picture).quantize(256)
        colours = np.array(image.getpalette() or [], np.uint16).reshape(-1, 3)
        for n, name in enumerate(("Red", "Green", "Blue")):
            dataset.add_new(f"{name}PaletteColorLookupTableDescriptor", "US", [len(colours), 0, 16])
            dataset.add_new(f"{name}PaletteColorLookupTableData", "OW", (colours[:, n] * 257).tobytes())
        dataset.SamplesPerPixel, dataset.PhotometricInterpretation = 1, "PALETTE COLOR"
        del dataset.PlanarConfiguration
        content = np.asarray(image).tobytes()
    dataset.PixelData = content + bytes(len(content) % 2)
    dataset["PixelData"].VR = "OB"
    if syntax == "JPEG":
        dataset.PhotometricInterpretation = "YBR_FULL_422"
        dataset.PixelData = encapsulate([imagecodecs.jpeg8_encode(picture, level=90)])
        dataset["PixelData"].is_undefined_length = True
        dataset.file_meta.TransferSyntaxUID = JPEGBaseline8Bit
    dataset.save_as(path)


def reads(path: Path, words: str, box: tuple[int, int, int, int]) -> bool:
    """Whether tesseract reads half of some words or more where they stand."""
    from isocenter.files.dicom.reading import pixel_decoding

    [frame] = pixel_decoding.iterate_frames(pydicom.dcmread(path), str(path))
    picture = Image.fromarray(frame if frame.dtype == np.uint8 else (frame >> 8).astype(np.uint8)).convert("L")
    part = picture.crop((box[0] - 6, box[1] - 6, box[2] + 6, box[3] + 6))
    part = part.resize((part.width * 3, part.height * 3), Image.Resampling.LANCZOS)
    with tempfile.NamedTemporaryFile(suffix=".png") as file:
        part.save(file.name)
        command = ["tesseract", file.name, "-", "--psm", "7"]
        text = subprocess.run(command, capture_output=True, text=True, check=False).stdout
    return SequenceMatcher(None, words.casefold(), text.strip().casefold()).ratio() >= 0.5


def on_series(room: Path, slices: int, options: str) -> str:
    """CPU time and memory of one series of CT slices of 512 x 512."""
    folder = room / "series"
    if not folder.is_dir():
        folder.mkdir()
        grid = np.random.default_rng(0)
        body = np.where(np.hypot(*np.mgrid[-256:256, -256:256]) < 180, 40, -1000)
        for n in range(slices):
            pixels = (body + grid.normal(0, 15, body.shape)).astype(np.int16)
            write_slice(folder / f"{n:04d}.dcm", pixels, position=(0, 0, n), PatientID="1", SeriesInstanceUID="1.2.3")
    began = time.monotonic()
    _, taken = run(folder, room / f"series-{options or 'plain'}", options)
    seconds = f"{time.monotonic() - began:.0f} s of the clock"
    cpu, peak = taken.ru_utime + taken.ru_stime, taken.ru_maxrss >> 10
    return f"{slices} slices of 512 x 512, {options or 'attributes alone'}: {cpu:.0f} CPU s, {seconds}, {peak} MiB"


if __name__ == "__main__":
    main()
