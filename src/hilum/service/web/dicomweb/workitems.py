"""UPS-RS: orders of jobs as workitems (PS3.18 11); event channels are not built."""

from __future__ import annotations

import json
import re
from collections.abc import Callable, Sequence
from itertools import islice
from typing import Annotated

from anyio import to_thread
from fastapi import APIRouter, Path, Query, Request
from fastapi.responses import JSONResponse, Response
from pydantic import JsonValue

from hilum.files.dicom import library_warnings
from hilum.files.storage import structured_text
from hilum.lazy import pydicom
from hilum.service.dimse_statuses import DUPLICATE, WorkitemError
from hilum.service.objects import dicom_json
from hilum.service.objects.dicom_json import CHARACTER_SET, IN_JSON, MEDIA, DicomJson
from hilum.service.records.workitem_records import ALREADY_CANCELED, ALREADY_COMPLETED, NO_SUCH_WORKITEM, Workitems
from hilum.service.web import access, web_node, worklist_routes
from hilum.service.web.access import ROLES, WORKING, Who
from hilum.service.web.response_shapes import Problem
from hilum.service.web.web_node import MOST_ROWS, UID, Node, Uid, WebError, WebNode

router = APIRouter(
    prefix="/dicomweb/workitems",
    tags=["DICOMweb"],
    default_response_class=Response,
    responses={status: {"model": Problem} for status in (400, 408, 413, 415)},
)
BODY: dict[str, JsonValue] = {"requestBody": {"required": True, "content": {MEDIA: {"schema": {"type": "array"}}}}}
LARGEST = 1 << 20  # bytes of a workitem
JSON_TYPES = (MEDIA, "application/json")
# Statuses of DIMSE below this one are about what was sent, and not about the state of a workitem. PS3.7 C
ABOUT_STATE = 0xB000
OPTIONS = ("limit", "offset", "includefield", "fuzzymatching")
# What the editions of PS3.18 have called the UIDs of a workitem and of a transaction, without capitals and hyphens.
WORKITEM = ("workitem", "workitemuid", "affectedsopinstanceuid", "sopinstanceuid", "upsinstanceuid")
TRANSACTION = ("transactionuid", "transaction")


def _with_parameter(name: str) -> dict[str, JsonValue]:
    """What OpenAPI states of a body and a UID that is a parameter."""
    stated: dict[str, JsonValue] = {
        "name": name,
        "in": "query",
        "required": False,
        "schema": {"type": "string", "pattern": UID},
    }
    return {**BODY, "parameters": [stated]}


def _uid_given(request: Request, names: Sequence[str]) -> str:
    """The UID in a parameter of one of these names, or without a name; "" without. Others are ignored, PS3.18 8.3.

    Raises WebError for two UIDs, and for a parameter of such a name that holds none, or of another name that does: it
    may be misspelt.
    """
    uids = set[str]()
    for name, value in request.query_params.multi_items():
        is_named = re.sub("[-_]", "", name.lower()) in names
        uid = value if is_named else name if names and not value else ""
        if re.fullmatch(UID, uid):
            uids.add(uid)
        elif is_named or re.fullmatch(UID, value):
            raise WebError(400, "is no parameter of this request, or no UID", _ascii(name[:64]), "See PS3.18 11")
    if len(uids) > 1:
        raise WebError(400, f"has {len(uids)} UIDs", "the request", "Give one")
    return next(iter(uids), "")


@router.post(
    "",
    status_code=201,
    openapi_extra=_with_parameter("workitem"),
    responses={201: {"description": "Created"}},
    dependencies=[access.require_roles(WORKING)],
)
async def create_workitem(request: Request, node: Node, who: Who) -> Response:
    """Order a job: a rule of the node on series of a study."""
    uid_wanted = _uid_given(request, WORKITEM)
    dataset = await _dataset(request)
    uid, refused = await _try_change(node, lambda items: items.create(dataset, uid_wanted, who=who))
    return refused or Response(
        status_code=201, headers={"Location": f"{web_node.dicomweb_url(request)}/workitems/{uid}"}
    )


@router.get(
    "", responses={200: IN_JSON, 204: {"description": "Nothing fits"}}, dependencies=[access.require_roles(ROLES)]
)
def search_workitems(
    request: Request,
    node: Node,
    who: Who,
    limit: Annotated[int, Query(ge=0)] = MOST_ROWS,
    offset: Annotated[int, Query(ge=0, le=10**9)] = 0,
) -> Response:
    """Workitems, oldest first, by any attribute; one within a sequence is written 00404018.00080104."""
    conditions, unknown = web_node.query_conditions(request, OPTIONS)
    hidden = worklist_routes.studies_with_hidden_answers(node, who)  # a finding changes the priority of a workitem
    with library_warnings.collect_warnings():
        rows = (
            row
            for one in node.workitems.all(who=who, hidden=hidden)
            if dicom_json.elements_match(row := _json(one), conditions)
        )
        found = list(islice(rows, offset, offset + min(limit, MOST_ROWS)))
    headers = web_node.warning_headers(web_node.ignored_words(unknown))
    return JSONResponse(found, 200, headers, MEDIA) if found else Response(status_code=204, headers=headers)


@router.get("/{workitem}", responses={200: IN_JSON}, dependencies=[access.require_roles(ROLES)])
def get_workitem(request: Request, node: Node, who: Who, workitem: Uid) -> Response:
    """One workitem, without its Transaction UID."""
    _uid_given(request, ())
    try:
        worklist_routes.refuse_hidden(node, who, node.workitems.study_of(workitem))
        with library_warnings.collect_warnings():
            return JSONResponse([_json(node.workitems.get(workitem))], media_type=MEDIA)
    except WorkitemError as error:
        raise _web_error(error) from error


@router.post(
    "/{workitem}", openapi_extra=_with_parameter("transaction-uid"), dependencies=[access.require_roles(WORKING)]
)
async def update_workitem(request: Request, node: Node, who: Who, workitem: Uid) -> Response:
    """Change attributes of a workitem; of one that is claimed, as its performer."""
    transaction = _uid_given(request, TRANSACTION)
    changes = await _dataset(request)
    _, refused = await _try_change(node, lambda items: items.update(workitem, changes, transaction, who=who))
    return refused or Response()


@router.put("/{workitem}/state", openapi_extra=BODY, dependencies=[access.require_roles(WORKING)])
async def change_workitem_state(request: Request, node: Node, who: Who, workitem: Uid) -> Response:
    """Claim a workitem, or end it, under the Transaction UID of its performer."""
    transaction = _uid_given(request, TRANSACTION)
    change = await _dataset(request)
    state, transaction = str(change.get("ProcedureStepState") or ""), str(change.get("TransactionUID") or transaction)
    _, refused = await _try_change(node, lambda items: items.change_state(workitem, state, transaction, who=who))
    return refused or Response()


@router.post(
    "/{workitem}/cancelrequest",
    status_code=202,
    responses={202: {"description": "It is cancelled"}},
    dependencies=[access.require_roles(WORKING)],
)
async def cancel_workitem(
    request: Request, node: Node, who: Who, workitem: Annotated[str, Path(pattern=UID)]
) -> Response:
    """Cancel a workitem that nobody has claimed but the node."""
    _uid_given(request, ())
    stated = await _dataset(request, is_needed=False)
    reason = str(stated.get("ReasonForCancellation") or "")
    _, refused = await _try_change(node, lambda items: items.request_cancel(workitem, reason, who=who), 202)
    return refused or Response(status_code=202)


async def _try_change(
    node: WebNode, step: Callable[[Workitems], str | None], status: int = 200
) -> tuple[str | None, Response | None]:
    """(what a change gives, the answer where it is refused, or was made before); status: of the latter.

    A Warning header names the state too, PS3.18 11.7.3.2.
    """

    def taken() -> str | None:
        with library_warnings.collect_warnings():  # what is odd is said with its value, which may be a patient's
            return step(node.workitems)

    try:
        return await to_thread.run_sync(taken), None
    except WorkitemError as error:
        warning = {"Warning": f'299 hilum "The workitem {_ascii(error.problem)}"'}
        if error.status in (ALREADY_CANCELED, ALREADY_COMPLETED):
            return None, Response(status_code=status, headers=warning)
        refused = _web_error(error)
        body = {"problem": refused.problem, "where": refused.where, "remedy": refused.remedy}
        return None, JSONResponse(body, refused.status, warning)


def _web_error(error: WorkitemError) -> WebError:
    is_conflict = error.status >= ABOUT_STATE or error.status == DUPLICATE
    status = 404 if error.status == NO_SUCH_WORKITEM else 409 if is_conflict else 400
    return WebError(status, f"the workitem {error.problem}", error.where, error.remedy)


def _ascii(words: str) -> str:
    return words.encode("ascii", "replace").decode().replace('"', "'").replace("\n", " ")


async def _dataset(request: Request, *, is_needed: bool = True) -> pydicom.Dataset:
    """The data set of a body in DICOM JSON. Raises WebError for what is none."""
    body = b""
    async for data in request.stream():
        body += data
        if len(body) > LARGEST:
            raise WebError(413, f"the body is larger than {LARGEST} bytes", "the request", "Leave out what is large")
    if not body and not is_needed:
        return pydicom.Dataset()
    kind = request.headers.get("content-type", MEDIA).partition(";")[0].strip().lower()
    if kind not in JSON_TYPES:
        raise WebError(415, f"the body is {_ascii(kind)}", "the request", f"Send it as {MEDIA}")
    try:
        content = structured_text.parse_json(body.decode())
        with library_warnings.collect_warnings():
            dataset = pydicom.Dataset.from_json(content[0] if isinstance(content, list) else content)
            json.dumps(dataset.to_json_dict())  # what cannot be stated again is refused now
    except Exception as error:  # the library raises what it likes for what came from outside
        remedy = "Send an array of one data set, PS3.18 F"
        raise WebError(400, "the body is no data set in DICOM JSON", "the request", remedy) from error
    return dataset


def _json(dataset: pydicom.Dataset) -> DicomJson:
    return {tag: one for tag, one in dataset.to_json_dict().items() if tag != CHARACTER_SET}
