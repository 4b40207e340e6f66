"""Whatever bytes come, the receiver refuses them, keeps its memory, and serves the next peer."""

from __future__ import annotations

import socket
import struct
import threading
import zlib
from contextlib import ExitStack, suppress

import psutil
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.service.dicom import messages, sending
from hilum.service.dicom.dicom_listening import DicomPeer
from hilum.service.dicom.messages import HEAD, ProtocolError
from service.objects_sent import data_set, encoded, simulated
from service.receiving import receiving, until
from service.talking import CAPTURE, ECHO, RELEASE, Talk, command, object_sent, request, values

REJECTED, ACCEPTED, ABORTED = 3, 2, 7
DATA = data_set(encoded(simulated()))
STORE = command(1, sop_class=CAPTURE, instance="1.2.3.4")
WHOLE = request() + object_sent(DATA, "1.2.3.4") + ECHO + RELEASE


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    with receiving(tmp_path_factory.mktemp("node")) as made:
        yield made


def is_served(node):
    sending.send_echo("TEST", DicomPeer("node", "HILUM", "127.0.0.1", node.port))
    return True


@pytest.mark.parametrize(
    "said",
    [
        messages.encode_pdu(9, bytes(4)),
        request(),
        messages.encode_pdu(2, bytes(80)),
        HEAD.pack(4, 0xFFFFFFFF),
        HEAD.pack(4, 131073),
        messages.encode_pdu(4, b"\0\0"),
        messages.encode_pdu(4, struct.pack(">IBB", 0xFFFFFFFF, 1, 2) + b"x"),
        messages.encode_pdu(4, struct.pack(">IBB", 1, 1, 2)),
        values(1, 2, b"a data set without a command"),
        values(7, 3, b"of a context that was not proposed"),
        values(1, 3, b"no command"),
        values(1, 3, struct.pack("<HHI", 0, 0x100, 0xFFFFFFFF)),
        values(1, 3, struct.pack("<HHIH", 0x10, 0x10, 2, 1)),
        STORE + ECHO,
        STORE + values(3, 2, DATA),
        command(1, sop_class=CAPTURE, instance="1.2.3.4", has_data=False),
        values(1, 1, bytes(9000)) + values(1, 1, bytes(9000)),
    ],
)
def test_what_has_no_place_in_an_association_aborts_it_and_leaves_nothing(node, said):
    with Talk(node.port) as talk:
        assert talk.associate() == ACCEPTED
        talk.say(said)
        assert talk.hear()[0] in {ABORTED, 0}  # what was not read makes the system reset the connection
    assert is_served(node)
    until(lambda: not node.parts)


@pytest.mark.parametrize(
    "said",
    [
        b"GET / HTTP/1.1\r\n\r\n",
        HEAD.pack(1, 0xFFFFFFFF),
        HEAD.pack(1, 1 << 19),
        messages.encode_pdu(1, b""),
        messages.encode_pdu(1, bytes(68)),
        messages.encode_pdu(1, request()[HEAD.size : -1]),
        request(contexts=[]),
        RELEASE,
        ECHO,
    ],
)
def test_what_is_no_request_is_turned_away(node, said):
    with Talk(node.port) as talk:
        talk.say(said)
        assert talk.hear()[0] in {ABORTED, 0}
    assert is_served(node)


def test_titles_are_no_paths(tmp_path):
    with receiving(tmp_path / "node") as node:
        for number, title in enumerate(("../../escaped", "/tmp/escaped", "..", "a/b")):  # noqa: S108
            with Talk(node.port) as talk:
                assert talk.associate(calling=title, called=title) == ACCEPTED
                data = data_set(encoded(simulated(f"1.2.3.{number}")))
                talk.say(object_sent(data, f"1.2.3.{number}"))
                assert talk.status() == 0
        assert {line.path.split("/")[0] for line in node.lines} == {"studies"}
        assert len(node.lines) == 4 and not list(tmp_path.parent.rglob("*escaped*"))


@pytest.mark.parametrize("titles", [{"calling": "A\0B"}, {"called": "A\x1b[2J"}])
def test_titles_with_control_characters_are_no_request(node, titles):
    """A database would not hold them, and a terminal would obey."""
    with Talk(node.port) as talk:
        assert talk.associate(**titles) in {ABORTED, 0}
    assert is_served(node)


@given(st.binary(max_size=400))
def test_the_body_of_a_request_is_parsed_or_refused(body):
    try:
        messages.parse_request(body)
    except ProtocolError as error:
        assert str(error)


@settings(max_examples=40, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(
    changes=st.lists(st.tuples(st.integers(0, len(WHOLE) - 1), st.integers(0, 255)), min_size=1, max_size=4),
    cut=st.integers(0, len(WHOLE)),
)
def test_a_conversation_with_changed_bytes_is_survived(node, changes, cut):
    said = bytearray(WHOLE)
    for place, value in changes:
        said[place] = value
    with Talk(node.port) as talk:
        with suppress(OSError):  # it may have ended before all was said
            talk.say(bytes(said[: len(said) - cut]))
            talk.socket.shutdown(socket.SHUT_WR)
        while talk.hear()[0]:
            pass
    assert is_served(node)


def test_a_byte_now_and_then_does_not_keep_an_association_open(tmp_path):
    with receiving(tmp_path, idle_s=0.3) as node:
        with Talk(node.port) as talk:
            assert talk.associate() == ACCEPTED
            ended, sent = threading.Event(), []
            slowly = threading.Thread(target=_say_slowly, args=(talk, object_sent(DATA, "1.2.3.4"), ended, sent))
            slowly.start()
            assert talk.hear()[0] in {ABORTED, 0}
            ended.set()
            slowly.join()
        assert len(sent) < len(object_sent(DATA, "1.2.3.4"))
        assert is_served(node)


def _say_slowly(talk, said, ended, sent):
    for place in range(len(said)):
        if ended.wait(0.03):
            return
        try:
            talk.say(said[place : place + 1])
        except OSError:
            return
        sent.append(place)


def test_two_hundred_idle_connections_keep_nobody_out_and_take_little_memory(tmp_path):
    with receiving(tmp_path, idle_s=20.0) as node, ExitStack() as stack:
        before = psutil.Process().memory_info().rss
        for _ in range(200):
            stack.enter_context(Talk(node.port))
        assert is_served(node)
        with Talk(node.port) as talk:
            assert talk.associate() == ACCEPTED
            talk.say(object_sent(DATA, "1.2.3.4"))
            assert talk.status() == 0
        until(lambda: threading.active_count() < 100)  # the oldest have given way
        assert psutil.Process().memory_info().rss - before < 50e6


def test_objects_that_never_end_take_no_memory(tmp_path):
    with receiving(tmp_path, max_object_mb=1) as node, Talk(node.port) as talk:
        talk.associate()
        talk.say(STORE)
        before = psutil.Process().memory_info().rss
        piece = values(1, 0, bytes(131066))
        for _ in range(800):
            talk.say(piece)
        assert psutil.Process().memory_info().rss - before < 20e6
        assert node.parts == []


def test_a_deflate_bomb_is_refused_without_being_inflated(tmp_path):
    deflated = "1.2.840.10008.1.2.1.99"
    packer = zlib.compressobj(1, wbits=-15)
    bomb = packer.compress(bytes(200_000_000)) + packer.flush()
    with receiving(tmp_path) as node, Talk(node.port) as talk:
        talk.associate(contexts=[(CAPTURE, deflated)])
        before = psutil.Process().memory_info().rss
        talk.say(object_sent(bomb, "1.2.3.4"))
        assert talk.status() == 0xC000
        assert psutil.Process().memory_info().rss - before < 60e6
