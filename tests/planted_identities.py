"""Identities of people who never lived, planted wherever a DICOM object has room for text."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import pydicom
from pydicom.datadict import dictionary_VR
from pydicom.dataset import Dataset

from hilum.deidentification import confidentiality_profile

LONG = {"LO", "SH", "ST", "LT", "UT", "UC", "AE", "CS"}
ALONE = 0x00120081  # a name of a committee, wrong without its number, which the profile removes
LENGTHS = {"SH": 16, "AE": 16, "CS": 16, "LO": 64}


@dataclass(frozen=True)
class Identity:
    """A person; encoding: Python's name of what the file's text is then written in."""

    charset: str | list[str]
    encoding: str
    name: str
    number: str = "QX4471903"
    birth: str = "19370422"
    accession: str = "ACC7781234"
    physician: str = "Quastenflosser^Ida"
    address: str = "Irrlichtgasse 17"

    @property
    def words(self) -> list[str]:
        """All that must not be found."""
        parts = [part for group in self.name.split("=") for part in group.split("^") if part]
        return [*parts, self.number, self.birth, self.accession, "Quastenflosser", "Irrlichtgasse"]

    def traces(self, content: bytes) -> list[str]:
        """The words that are in bytes, in UTF-8, Latin-1 or the file's own set, in any case of letters."""
        lower = content.lower()
        found = []
        for word in self.words:
            forms = {
                form.encode(encoding, "ignore")
                for form in (word, word.lower(), word.upper())
                for encoding in ("utf-8", "latin-1", self.encoding, "utf-16-le")
            }
            if any(len(form) > 3 and (form in content or form.lower() in lower) for form in forms):
                found.append(word)
        return found


IDENTITIES = (
    Identity("ISO_IR 100", "latin-1", "Müßiggänger^Ottilie"),
    Identity("ISO_IR 192", "utf-8", "Żółtowska^Zażółć"),
    Identity("ISO_IR 144", "iso8859-5", "Незабудкин^Порфирий"),
    Identity(["", "ISO 2022 IR 87"], "iso2022_jp", "Yamabukinoki^Tarozaemon=山吹木^太郎左"),
    Identity("GB18030", "gb18030", "Ouyangxiaofeng^Qianqian=欧阳^晓枫"),
    Identity(["", "ISO 2022 IR 149"], "euc_kr", "Namgungmin^Jihyeon=남궁^지현"),
)


def plant(dataset: Dataset, who: Identity) -> None:
    """Put a person into every attribute of text that the profile lists, and wherever else there is room."""
    plain = who.name.split("=")[0].replace("^", " ")
    dataset.SpecificCharacterSet = who.charset
    for key, row in confidentiality_profile._rows().items():
        tag = int(key[1:5] + key[6:10], 16) if "X" not in key and "G" not in key else 0
        if tag >> 16 >= 8 and tag >> 16 != 0x42 and tag != ALONE and dictionary_VR(tag) in LONG and row["basicProfile"]:
            vr = dictionary_VR(tag)
            text = "CODE" if vr in ("AE", "CS") else f"{plain} born {who.birth}"[: LENGTHS.get(vr, 200)]
            dataset.add_new(tag, vr, text)
    dataset.PatientName, dataset.PatientID, dataset.PatientBirthDate = who.name, who.number, who.birth
    dataset.IssuerOfPatientID = ""
    dataset.AccessionNumber, dataset.ReferringPhysicianName = who.accession, who.physician
    dataset.PatientAddress = who.address
    # Where no table has it: the second net.
    dataset.ContrastBolusAgent = f"for {plain}"
    dataset.ImageComments = f"seen by {who.physician.split('^')[0]}"
    dataset.TransducerData = who.number
    dataset.FilterMaterial = [who.number, "COPPER"]
    dataset.ProcedureCodeSequence = [code("A1", f"knee of {plain}")]
    dataset.ProcedureCodeSequence[0].PurposeOfReferenceCodeSequence = [code("B2", who.address)]
    _plant_private(dataset, who, plain)
    dataset.add_new(0x60000022, "LO", f"overlay of {plain}")
    dataset.add_new(0x60001500, "LO", plain)
    dataset.add_new(0x60004000, "LT", plain)
    dataset.add_new(0x50000022, "LO", plain)
    dataset.add_new(0x50002500, "LO", who.number)
    _plant_embedded(dataset, who, plain)
    dataset.add_new(0xFFFCFFFC, "OB", who.number.encode() + b"\0")
    dataset.add_new(0x0018FFF1, "UN", plain.encode("utf-8") + b"\0")


def plant_outside(dataset: Dataset, who: Identity) -> None:
    """The same in the file meta information and before it."""
    dataset.file_meta.SourceApplicationEntityTitle = who.number
    dataset.file_meta.PrivateInformationCreatorUID = "1.2.3.4"
    dataset.file_meta.PrivateInformation = who.number.encode() + b"\0"
    dataset.preamble = who.address.encode().ljust(128, b"\0")


def _plant_private(dataset: Dataset, who: Identity, plain: str) -> None:
    block = dataset.private_block(0x0009, f"OF {who.number}", create=True)
    block.add_new(0x01, "LO", plain)
    block.add_new(0x02, "UN", plain.encode("utf-8"))
    block.add_new(0x03, "SQ", [code("C3", plain)])
    block = dataset.private_block(0x0019, "SIEMENS MR HEADER", create=True)
    block.add_new(0x0C, "IS", "1000")
    block.add_new(0x0E, "LO", plain)
    block = dataset.private_block(0x0043, "GEMS_PARM_01", create=True)
    block.add_new(0x39, "LO", plain)


def _plant_embedded(dataset: Dataset, who: Identity, plain: str) -> None:
    """The same where an object holds others: a thumbnail, a document, notes, attributes before a change."""
    icon = Dataset()
    icon.Rows, icon.Columns, icon.SamplesPerPixel, icon.PhotometricInterpretation = 1, 16, 1, "MONOCHROME2"
    icon.BitsAllocated, icon.BitsStored, icon.HighBit, icon.PixelRepresentation = 8, 8, 7, 0
    icon.PixelData = who.number.encode().ljust(16)
    dataset.IconImageSequence = [icon]
    held = Dataset()
    held.EncapsulatedDocument, held.DocumentTitle = b"%PDF-1.7 " + plain.encode().ljust(64), plain[:64]
    dataset.ReferencedImageSequence = [held]
    before = Dataset()
    before.ModifiedAttributesSequence, before.SourceOfPreviousValues = [Dataset()], plain[:64]
    before.ModifiedAttributesSequence[0].PatientName = who.name
    before.ModifiedAttributesSequence[0].OperatorIdentificationSequence = [code("D4", plain)]
    dataset.OriginalAttributesSequence = [before]
    note = Dataset()
    note.UnformattedTextValue = plain
    dataset.WaveformAnnotationSequence = [note]
    dataset.add_new(0x50003000, "OW", who.number.encode() + b"\0")
    dataset.add_new(0x60003000, "OW", who.number.encode() + b"\0")


def code(value: str, meaning: str) -> Dataset:
    """A code of nobody's scheme."""
    item = Dataset()
    item.CodeValue, item.CodingSchemeDesignator, item.CodeMeaning = value, "99TEST", meaning
    return item


def write_planted(source: Path, path: Path, who: Identity) -> None:
    """A copy of a file with a person in it."""
    dataset = pydicom.dcmread(source, force=True)
    plant(dataset, who)
    plant_outside(dataset, who)
    path.parent.mkdir(parents=True, exist_ok=True)
    dataset.save_as(path, enforce_file_format=True)
