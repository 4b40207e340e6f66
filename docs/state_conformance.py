"""Write docs/conformance.md: the DICOM conformance statement and the IHE integration statement, from the code.

    python docs/state_conformance.py

Classes, roles and syntaxes are read from the modules that serve them; each row of a table of IHE names its test.
"""

from __future__ import annotations

from collections.abc import Sequence
from importlib.metadata import version
from pathlib import Path

from pydicom.uid import UID
from pynetdicom import DEFAULT_TRANSFER_SYNTAXES

from hilum.files.dicom.rejection import KEY_OBJECTS, QUALITY, REJECTING
from hilum.files.dicom.writing.dicom_answers import ANSWERS as WRITERS
from hilum.service.configuration import DicomSection
from hilum.service.dicom import asking, handed_associations, messages
from hilum.service.model_facts import DICOM_PRIORITIES
from hilum.service.records import workitem_records

ROOT = Path(__file__).resolve().parent.parent
PAGE = ROOT / "docs" / "conformance.md"
NOT_DONE = "not done"
SERVICE, FILES = "tests/service", "tests/files"
# (transaction, what the node is in it, the test that shows it, or "not done" with why). IHE AIW-I 1.1, table 50.1-1
AIW_I = (
    ("RAD-80 Create UPS Workitem", "Task Manager", f"{SERVICE}/test_workitems.py"),
    ("RAD-81 Query UPS Workitems", "Task Manager", f"{SERVICE}/test_workitems.py"),
    ("RAD-82 Claim UPS Workitem", "Task Manager, Task Performer", f"{SERVICE}/test_workitems.py"),
    ("RAD-83 Get UPS Workitem Contents", "Task Manager", f"{SERVICE}/test_workitems.py"),
    ("RAD-84 Update UPS Workitem", "Task Manager, Task Performer", f"{SERVICE}/test_workitems.py"),
    ("RAD-85 Complete UPS Workitem", "Task Manager, Task Performer", f"{SERVICE}/test_workitems.py"),
    ("RAD-86 Manage UPS Subscription", "", f"{NOT_DONE}: there are no event channels"),
    ("RAD-87 Send UPS Notification", "", f"{NOT_DONE}: there are no event channels"),
    ("RAD-88 Request UPS Workitem Cancelation", "Task Manager", f"{SERVICE}/test_workitems.py"),
    ("RAD-109 Open Event Channel", "", f"{NOT_DONE}: there are no event channels"),
    ("RAD-13 Procedure Update", "", f"{NOT_DONE}: HL7 is not received"),
    ("RAD-16 Retrieve Images", "", f"{NOT_DONE}: an order waits for its study to be sent, and fetches none"),
    ("RAD-18 Creator Images Stored", "Task Performer", f"{SERVICE}/test_courier.py"),
    ("RAD-49 Instance Availability Notification", "", f"{NOT_DONE}"),
    ("RAD-107 WADO-RS Retrieve", "source of its results", f"{SERVICE}/test_web_dicomweb.py"),
    ("RAD-108 Store Instances over the Web", "Task Performer", f"{SERVICE}/test_courier.py"),
)
# (result primitive, how it is encoded, the test that shows it, or "not done"). IHE AIR 1.1
AIR = (
    ("Root result", "Comprehensive 3D SR, TID 1500", f"{FILES}/test_dicom_sr_structures.py"),
    ("Qualitative findings", "codes of a structured report", f"{FILES}/test_dicom_sr_write.py"),
    ("Measurements", "numbers with UCUM units, TID 300 and 1411", f"{FILES}/test_dicom_sr_structures.py"),
    ("Locations (points)", "", f"{NOT_DONE}: no kind of problem states a point"),
    ("Regions (boxes)", "SCOORD POLYLINE of a structured report, TID 1410", f"{FILES}/test_dicom_sr_write.py"),
    ("Regions (structures)", "Segmentation; TID 1411 names its segment", f"{FILES}/test_dicom_seg_write.py"),
    ("Parametric maps", "Parametric Map", f"{FILES}/test_dicom_pm.py"),
    ("Tracking identifiers", "of each group of a structured report, TID 4108", f"{FILES}/test_dicom_sr_write.py"),
    ("Image references", "image library of a structured report, TID 1600", f"{FILES}/test_dicom_sr_structures.py"),
    ("Image selections", "", f"{NOT_DONE}: Key Object Selections are written for rejections alone"),
)
# (transaction of AIR, what the node is in it, its test or why it is not done)
AIR_STEPS = (
    ("RAD-18 Creator Images Stored", "Evidence Creator", f"{SERVICE}/test_courier.py"),
    ("RAD-108 Store Instances over the Web", "Evidence Creator", f"{SERVICE}/test_courier.py"),
    ("RAD-10 Storage Commitment", "Evidence Creator", f"{SERVICE}/test_comprehensive.py"),
    ("RAD-14 Query Images, RAD-16 Retrieve Images", "", f"{NOT_DONE}: results are found and fetched by DICOMweb alone"),
    ("RAD-129 QIDO-RS Query, RAD-107 WADO-RS Retrieve", "source of its results", f"{SERVICE}/test_web_dicomweb.py"),
    ("RAD-136 Display Analysis Result", "", f"{NOT_DONE}: a viewer does, such as OHIF"),
)
# (transaction of Imaging Object Change Management, what the node is in it, its test)
IOCM = (
    (
        "RAD-66 Rejection Note Stored",
        "sender: for its own results that were superseded",
        f"{SERVICE}/test_rejecting.py",
    ),
    ("RAD-66 Rejection Note Stored", "receiver: what it names is in no job", f"{SERVICE}/test_rejections.py"),
)
# The class of reports, as their writer names it in highdicom.
IS_3D = "Comprehensive3DSR" in (ROOT / "src/hilum/files/dicom/writing/sr.py").read_text(encoding="utf-8")
SR_CLASS = "1.2.840.10008.5.1.4.1.1.88.34" if IS_3D else "1.2.840.10008.5.1.4.1.1.88.33"
IN_ITS_PLACE = "1.2.840.10008.5.1.4.1.1.88.33"
FALLBACK = (
    "A peer that refuses this class of reports (in its association, by the status 0122, or by the Failure Reason 0122 "
    f"of STOW-RS) gets the same content as {UID(IN_ITS_PLACE).name} ({IN_ITS_PLACE}) under a UID of its own, which is "
    "asked to be committed. "
    if IS_3D
    else ""
)
# {file that writes a kind of answer: its class}
ANSWERS = {
    "seg": "1.2.840.10008.5.1.4.1.1.66.4",
    "labelmap": "1.2.840.10008.5.1.4.1.1.66.7",
    "sr": SR_CLASS,
    "pm": "1.2.840.10008.5.1.4.1.1.30",
    "gsps": "1.2.840.10008.5.1.4.1.1.11.1",
    "sc": "1.2.840.10008.5.1.4.1.1.7",
    "pdf": "1.2.840.10008.5.1.4.1.1.104.1",
    "rtstruct": "1.2.840.10008.5.1.4.1.1.481.3",
    "stl": "1.2.840.10008.5.1.4.1.1.104.3",
    "series": "1.2.840.10008.5.1.4.1.1.2",
}


def main() -> None:
    PAGE.write_text(page(), encoding="utf-8")


def page() -> str:
    """The text of the page."""
    dicom, syntaxes = DicomSection(), [named(one) for one in (messages.EXPLICIT, messages.IMPLICIT)]
    native = " or ".join(syntaxes)
    defaults = ", ".join(UID(one).name for one in DEFAULT_TRANSFER_SYNTAXES)  # what pynetdicom serves takes these
    served = [
        [named(messages.VERIFICATION), "SCP, SCU", native],
        ["every storage class, and whatever class is not of the standard", "SCP", f"any; {native} if offered"],
        ["the classes of the results", "SCU", native],
        [named(messages.COMMITMENT), "SCP, SCU", defaults],
        *([named(one), "SCP", defaults] for one in handed_associations.UPS_CLASSES),
        *([named(one), "SCU, in Python alone", native] for one in (asking.FIND, asking.MOVE, asking.GET)),
    ]
    web = [
        ["Studies: store, search, retrieve", "origin server", "STOW-RS, QIDO-RS, WADO-RS, PS3.18 10"],
        ["Studies: store", "user agent", "STOW-RS, for peers with `dicomweb`"],
        [
            "Worklist: create, retrieve, update, change state, request cancellation, search",
            "origin server",
            "PS3.18 11",
        ],
        ["Worklist: subscriptions and event channels", NOT_DONE, "PS3.18 11.10 to 11.12"],
    ]
    statuses = [
        [f"{number:04X}", name.replace("_", " ").lower()]
        for name, number in vars(workitem_records).items()
        if name.isupper() and isinstance(number, int)
    ]
    priorities = ", ".join(f"{ours} {theirs}" for ours, theirs in DICOM_PRIORITIES.items())
    return (
        "\n\n".join(
            [
                "# Conformance statements",
                "Written by `python docs/state_conformance.py` from the code: what a hospital asks before it "
                "connects a [node](how-to/serve.md).",
                "## DICOM",
                f"Hilum {version('hilum')}. Implementation class UID {messages.IMPLEMENTATION}, version name "
                f"{messages.VERSION}. The AE title is `{dicom.ae_title}` on port {dicom.port} unless `[dicom]` says "
                f"otherwise; at most {dicom.max_associations} associations at once, a PDU of "
                f"{messages.LARGEST_DATA} bytes. "
                "TLS on a "
                "second port, with client certificates if wanted. Whoever calls has to be a listed peer by AE title "
                "and address, except on the loopback interface.",
                table(["service", "role", "transfer syntaxes"], served),
                "Objects are kept as they came, in their transfer syntax. Results are written in Explicit VR Little "
                "Endian, in the character set ISO_IR 192 (UTF-8) or in that of their source; a peer that "
                "takes implicit "
                f"VR alone gets them in that. {FALLBACK}Workitems are answered in ISO_IR 192.",
                table(["answer", "class"], [[kind, named(uid)] for kind, uid in ANSWERS.items() if is_written(kind)]),
                "### DICOMweb",
                table(["transactions", "role", "standard"], web),
                "### Workitems",
                "States: "
                + ", ".join(workitem_records.STATES)
                + ". Needed with a value when it is created: "
                + ", ".join(workitem_records.VALUED)
                + ". Priorities: "
                + priorities
                + ".",
                table(["status", "meaning"], statuses),
                "## IHE",
                "### AI Workflow for Imaging (AIW-I)",
                table(["transaction", "actor", "test"], AIW_I),
                "### AI Results (AIR)",
                "The node is an Evidence Creator.",
                table(
                    ["result primitive", "encoded as", "test"], [[name, how, shown(test)] for name, how, test in AIR]
                ),
                table(["transaction", "actor", "test"], AIR_STEPS),
                "### Imaging Object Change Management (IOCM)",
                f"Notes are {named(KEY_OBJECTS)} with the title {QUALITY} ({REJECTING[QUALITY]}, DCM), for peers with "
                "`reject = true`; those that come in may have any of " + ", ".join(REJECTING) + ".",
                table(["transaction", "part", "test"], IOCM),
            ]
        )
        + "\n"
    )


def is_written(kind: str) -> bool:
    """Whether the writers make this kind of answer."""
    return kind in WRITERS


def shown(test: str) -> str:
    """The test that shows a primitive, or that it is not done."""
    return test if test.startswith(NOT_DONE) or (ROOT / test).exists() else NOT_DONE


def named(uid: str) -> str:
    """The name of a UID in the standard."""
    return f"{UID(uid).name} ({uid})"


def table(heads: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Rows in Markdown."""
    lines = [heads, ["---"] * len(heads), *rows]
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


if __name__ == "__main__":
    main()
