"""What the node asks of a real PACS: it stores, finds, moves, gets, and answers for what it was given."""

from __future__ import annotations

import struct

import pydicom
import pynetdicom
import pytest

import real_data
from hilum.service.dicom import asking, sending
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.dicom.messages import IMPLICIT
from hilum.service.dicom.sending import PeerError
from hilum.service.objects.journal import CommitmentReport, CommitmentRequest
from hilum.service.objects.object_store import ObjectStore
from ports import free_port
from service.objects_sent import data_set, encoded, simulated
from service.receiving import dcmtk, receiving, running
from service.talking import CAPTURE

US = "HILUM"
SEGMENTED = ("dcmqi_seg_23x38x3.dcm", "highdicom_seg_image_ct_binary.dcm")


@pytest.fixture
def pacs(orthanc):
    return DicomPeer("pacs", orthanc.ae_title, "127.0.0.1", orthanc.port, frozenset({"store", "commit"}), commits=True)


@pytest.fixture
def sources(tmp_path):
    paths = [tmp_path / f"{number}.dcm" for number in range(3)]
    for number, path in enumerate(paths):
        path.write_bytes(
            encoded(simulated(f"1.2.3.{number}", PatientName="Größe^Zoë", SpecificCharacterSet="ISO_IR 192"))
        )
    return paths


def test_what_is_stored_in_a_pacs_is_found_there_and_comes_back_by_move_and_get_with_its_data(
    pacs, orthanc, sources, tmp_path
):
    sending.send_echo(US, pacs)
    assert all(row.is_stored for row in sending.send_files(US, pacs, sources))
    wanted = {"StudyInstanceUID": "1.2", "NumberOfStudyRelatedInstances": "", "PatientName": ""}
    [study] = asking.find_records(US, pacs, wanted, "STUDY")
    assert (study["NumberOfStudyRelatedInstances"], study["PatientName"]) == ("3", "Größe^Zoë")
    assert asking.find_records(US, pacs, {"StudyInstanceUID": "1.9"}, "STUDY") == []
    with receiving(tmp_path / "node") as node:
        orthanc.knows("node", US, node.port)
        assert asking.move_objects(US, pacs, {"StudyInstanceUID": "1.2"}, "STUDY", US) == 3
        came = {line.instance: node.folder / line.path for line in node.lines}
    into = ObjectStore(tmp_path / "other", "getter")
    assert asking.fetch_objects(US, pacs, {"StudyInstanceUID": "1.2"}, "STUDY", into) == 3
    for number, source in enumerate(sources):
        assert data_set(came[f"1.2.3.{number}"].read_bytes()) == data_set(source.read_bytes())
    assert len(list((tmp_path / "other").rglob("*.dcm"))) == 3  # and none besides that was on its way
    into.close()


def test_an_object_because_of_which_a_peer_ends_the_association_holds_up_no_other(sources):
    def answer(event):
        if event.request.AffectedSOPInstanceUID == "1.2.3.1":
            event.assoc.abort()
        return 0x0000

    port, entity = free_port(), pynetdicom.AE("PACS")
    entity.add_supported_context(CAPTURE)
    handlers = [(pynetdicom.evt.EVT_C_STORE, answer)]
    server = entity.start_server(("127.0.0.1", port), block=False, evt_handlers=handlers)
    try:
        rows = sending.send_files(US, DicomPeer("pacs", "PACS", "127.0.0.1", port), sources)
    finally:
        server.shutdown()
    assert [row.is_stored for row in rows] == [True, False, True]


def test_a_pacs_answers_for_what_it_has_and_for_nothing_else(pacs, orthanc, sources, tmp_path):
    sending.send_files(US, pacs, sources[:1])
    request = CommitmentRequest("1.2.77", pacs.ae_title, (CAPTURE, CAPTURE), ("1.2.3.0", "1.2.3.1"), 0.0)
    with receiving(tmp_path / "node", peers=(pacs,)) as node:
        orthanc.knows("node", US, node.port)
        assert asking.request_commitment(US, pacs, request) is None  # it comes on an association of the PACS
        [report] = node.after(1)
    assert isinstance(report, CommitmentReport)
    assert (report.transaction, report.peer) == ("1.2.77", pacs.ae_title)
    assert (report.committed, report.failed) == (("1.2.3.0",), ("1.2.3.1",))


def test_a_pacs_that_asks_hears_what_is_safe_here(pacs, orthanc, sources, tmp_path):
    sending.send_files(US, pacs, sources[:1])
    with receiving(tmp_path / "node", peers=(pacs,)) as node:
        orthanc.knows("node", US, node.port)
        [instance] = orthanc.ask("/instances")
        [asked] = [orthanc.ask("/modalities/node/storage-commitment", {"Resources": [instance]})]
        [request] = node.after(1)
        assert request.instances == ("1.2.3.0",)
        asking.report_commitment(US, pacs, request, frozenset({"1.2.3.0"}))
        assert orthanc.ask(f"/storage-commitment/{asked['ID']}")["Status"] == "Success"
        asking.report_commitment(US, pacs, request, frozenset())
        assert orthanc.ask(f"/storage-commitment/{asked['ID']}")["Status"] == "Failure"


def test_dcmtk_gets_the_data_sets_byte_for_byte_and_what_it_does_not_take_is_said(sources, tmp_path):
    port, out = free_port(), tmp_path / "out"
    out.mkdir()
    strange = tmp_path / "strange.dcm"
    strange.write_bytes(encoded(simulated("1.2.3.9", SOPClassUID="1.3.12.2.1107.5.9.1")))
    with running([dcmtk("storescp"), "+B", "-od", out, port], port):
        rows = sending.send_files(US, DicomPeer("scp", "ANY-SCP", "127.0.0.1", port), [*sources, strange])
    assert [row.is_stored for row in rows] == [True, True, True, False]
    assert "no such class" in rows[-1].problem
    assert sorted(map(data_set, (path.read_bytes() for path in out.iterdir()))) == sorted(
        data_set(path.read_bytes()) for path in sources
    )


def test_a_peer_that_takes_implicit_vr_alone_gets_the_same_values_in_it(sources, tmp_path):
    """The syntax that everybody has to take, PS3.5 10.1; some take no other."""
    inside = pydicom.Dataset()
    inside.CodeValue, inside.CodeMeaning = "T-A0100", "Brain"
    nested = simulated("1.2.3.8", AnatomicRegionSequence=[inside])
    nested.add_new(0x00090010, "LO", "MAKER")
    nested.add_new(0x00091001, "FD", 0.5)
    sources[0].write_bytes(encoded(nested))
    sources += [real_data.SHIPPED / "dicom" / "files" / name for name in SEGMENTED]
    port, out = free_port(), tmp_path / "out"
    out.mkdir()
    with running([dcmtk("storescp"), "+xi", "-od", out, port], port):
        rows = sending.send_files(US, DicomPeer("scp", "ANY-SCP", "127.0.0.1", port), sources)
    assert [row.is_stored for row in rows] == [True] * len(sources)
    came = {one.SOPInstanceUID: one for one in map(pydicom.dcmread, out.iterdir())}
    for source in map(pydicom.dcmread, sources):
        one = came[source.SOPInstanceUID]
        assert one.file_meta.TransferSyntaxUID == IMPLICIT
        assert differing(one, source) <= {0x00091001}  # whose VR only its maker knows there
    assert came["1.2.3.8"][0x00091001].value == struct.pack("<d", 0.5)
    assert sorted(tmp_path.glob("*.dcm")) == sorted(path for path in sources if path.parent == tmp_path)


def differing(one: pydicom.Dataset, other: pydicom.Dataset) -> set[int]:
    """Tags of which one has another value, or none."""
    mine, others = ({element.tag: element.value for element in dataset} for dataset in (one, other))
    return {int(tag) for tag in {*mine, *others} if mine.get(tag) != others.get(tag)}


def test_a_peer_that_is_not_there_is_an_error_that_names_it():
    nobody = DicomPeer("archive", "ARCHIVE", "127.0.0.1", free_port())
    with pytest.raises(PeerError, match="ARCHIVE"):
        sending.send_echo(US, nobody)
    with pytest.raises(PeerError, match="archive"):
        asking.find_records(US, nobody, {}, "STUDY")


def test_a_peer_that_refuses_us_is_an_error(tmp_path, sources):
    with receiving(tmp_path / "node", min_free_gb=1e9) as node, pytest.raises(PeerError, match="rejects"):
        sending.send_files(US, DicomPeer("full", "FULL", "127.0.0.1", node.port), sources)


def test_a_file_that_is_gone_has_a_row_that_says_so_and_the_next_is_sent(sources, tmp_path):
    with receiving(tmp_path / "node") as node:
        rows = sending.send_files(
            US, DicomPeer("node", US, "127.0.0.1", node.port), [tmp_path / "gone.dcm", sources[0]]
        )
    assert [(row.status, row.problem) for row in rows] == [(None, "cannot be read: No such file or directory"), (0, "")]


def test_a_refused_object_has_a_row_that_says_why_and_the_next_is_sent(sources, tmp_path):
    with receiving(tmp_path / "node", max_object_mb=1, idle_s=1.0) as node:
        large = tmp_path / "large.dcm"
        large.write_bytes(encoded(simulated("1.2.3.8", PixelData=bytes(2_000_000))))
        rows = sending.send_files(US, DicomPeer("node", US, "127.0.0.1", node.port), [sources[0], large, sources[1]])
    assert [row.status for row in rows] == [0, 0xA700, 0]
    assert "larger than 1 MB" in rows[1].problem
