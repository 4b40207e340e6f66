"""What `/openapi.json` states, asked of every operation: each answer is one that it states, and none is a fault."""

from __future__ import annotations

from urllib.parse import quote

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from hilum.service.configuration import PeerSection
from service.objects_sent import encoded, simulated
from service.web_served import RELATED, related, served

schemathesis = pytest.importorskip("schemathesis")
checks = pytest.importorskip("schemathesis.specs.openapi.checks")

schemathesis.openapi.media_type("multipart/related", st.binary(max_size=50) | st.just(related(encoded(simulated()))))
# No segment of dots alone: the client would ask for another path.
ODD = st.one_of(
    st.text(min_size=1, max_size=30).filter(lambda text: text.strip(".")),
    st.sampled_from(["../..", "\x00", "9" * 70, "-1", "1e9", "1,2", "'; --", "0" * 32]),
)
THERE = {
    "study": "1.2",
    "series": "1.2.3",
    "instance": "1.2.3.4",
    "frames": "1",
    "name": "pacs",
    "n": 1,
    "workitem": "1.2.7",
}
NAMES = ["limit", "after", "state", "offset", "includefield", "PatientID", "00100010", "window", "quality"]
EVENTS = "/api/worklist/events"  # which go on for minutes
AS_STATED = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]


@pytest.fixture(scope="module")
def node(tmp_path_factory):
    """A node with one study and its answer, and a peer that is not there."""
    peer = PeerSection(name="pacs", ae_title="ORTHANC", host="127.0.0.1", port=1)
    with served(tmp_path_factory.mktemp("web") / "node", peers=[peer]) as web:
        web.store(encoded(simulated()))
        web.job = web.answer("1.2", {"answer.dcm": (encoded(simulated("1.2.3.9")), "1.2.3.9")}, [])
        yield web


@pytest.fixture(scope="module")
def operations(node):
    """Every operation that the node states."""
    schema = schemathesis.openapi.from_url(f"{node.url}/openapi.json")
    return [one for one in (result.ok() for result in schema.get_all_operations()) if one.path != EVENTS]


@settings(max_examples=60, deadline=None, suppress_health_check=list(HealthCheck))
@given(data=st.data())
def test_any_request_is_answered_as_the_node_states_and_never_with_a_fault(node, operations, data):
    operation = data.draw(st.sampled_from(operations))
    case = data.draw(operation.as_strategy())
    for name in case.path_parameters or {}:
        case.path_parameters[name] = quote(str(data.draw(st.just(THERE.get(name, node.job)) | ODD)), safe="")
    case.query.update(data.draw(st.dictionaries(st.sampled_from(NAMES), ODD, max_size=2)))
    stated = data.draw(st.sampled_from([{}, {}, RELATED, {"Content-Type": "text/plain"}, {"Accept": 'a/b;";;=,"'}]))
    answer = case.call(headers=stated)
    case.validate_response(answer, checks=AS_STATED)
