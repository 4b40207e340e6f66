"""UPS Push and Pull as SCP, PS3.4 CC.2: pynetdicom carries the messages, the records keep the workitems."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from isocenter.errors import IsocenterError
from isocenter.files.dicom import quiet
from isocenter.lazy import pydicom, pynetdicom
from isocenter.service.dicom import messages
from isocenter.service.objects.dicom_json import fits
from isocenter.service.objects.workitem import UPS_PUSH, WorkitemError
from isocenter.service.records.actor import Actor

if TYPE_CHECKING:
    from isocenter.service.records.workitems import Workitems

UPS_PULL = "1.2.840.10008.5.1.4.34.6.3"
CLASSES = (UPS_PUSH, UPS_PULL)
CHANGE_STATE, REQUEST_CANCEL = 1, 2  # of N-ACTION, PS3.4 CC.2.1 and CC.2.2
PENDING, NO_SUCH_ACTION, PROCESSING_FAILURE = 0xFF00, 0x0123, 0x0110
Answer = tuple[Any, "pydicom.Dataset | None"]


@dataclass(frozen=True, eq=False)
class UpsService:
    """The answers to one association's messages about workitems.

    opened: the records, once they are asked for
    who:    the peer
    """

    opened: Callable[[], Workitems]
    who: Actor

    @property
    def handlers(self) -> list[Any]:
        """The events of pynetdicom that it answers, but N-ACTION, which other services have too."""
        events = pynetdicom.evt
        return [
            (events.EVT_N_CREATE, self._create),
            (events.EVT_N_SET, self._update),
            (events.EVT_N_GET, self._get),
            (events.EVT_C_FIND, self._find),
        ]

    def act(self, event: Any) -> Answer:
        """The answer to an N-ACTION: a change of state, or a wish to cancel."""

        def done(workitems: Workitems) -> None:
            uid = str(event.request.RequestedSOPInstanceUID)
            # A wish to cancel may come without any information.
            information = event.action_information if event.request.ActionInformation else pydicom.Dataset()
            if event.action_type == CHANGE_STATE:
                state, transaction = (
                    str(information.get(one) or "") for one in ("ProcedureStepState", "TransactionUID")
                )
                workitems.change_state(uid, state, transaction, who=self.who)
            elif event.action_type == REQUEST_CANCEL:
                workitems.request_cancel(uid, str(information.get("ReasonForCancellation") or ""), who=self.who)
            else:
                raise WorkitemError(NO_SUCH_ACTION, "the node has no event channels", uid, "Retrieve the workitem")

        return self._answered(done)

    def _create(self, event: Any) -> Answer:
        def done(workitems: Workitems) -> pydicom.Dataset:
            named = event.request.AffectedSOPInstanceUID
            answer = pydicom.Dataset()
            answer.AffectedSOPInstanceUID = workitems.create(event.attribute_list, str(named or ""), who=self.who)
            return answer if named is None else pydicom.Dataset()

        return self._answered(done)

    def _update(self, event: Any) -> Answer:
        uid = str(event.request.RequestedSOPInstanceUID)
        return self._answered(lambda workitems: workitems.update(uid, event.modification_list, who=self.who))

    def _get(self, event: Any) -> Answer:
        def done(workitems: Workitems) -> pydicom.Dataset:
            dataset, asked = workitems.get(str(event.request.RequestedSOPInstanceUID)), event.attribute_identifiers
            return _only(dataset, asked) if asked else dataset

        return self._answered(done)

    def _find(self, event: Any) -> Iterator[tuple[Any, pydicom.Dataset | None]]:
        try:
            with quiet():
                identifier = event.identifier
                asked, conditions = [one.tag for one in identifier], _wanted(identifier)
                rows = [one for one in self.opened().all(who=self.who) if fits(one.to_json_dict(), conditions)]
        except IsocenterError as error:
            yield _status(PROCESSING_FAILURE, error.problem), None
            return
        for row in rows:
            if event.is_cancelled:
                yield 0xFE00, None
                return
            yield PENDING, _only(row, [*asked, "SOPClassUID", "SOPInstanceUID"])

    def _answered(self, step: Callable[[Workitems], pydicom.Dataset | None]) -> Answer:
        """The status of a step, and what it gives."""
        try:
            with quiet():  # what is odd is said with its value, which may be a patient's
                return messages.SUCCESS, step(self.opened())
        except WorkitemError as error:
            return _status(error.status, error.problem), None
        except IsocenterError as error:  # the records are away
            return _status(PROCESSING_FAILURE, error.problem), None


def _status(status: int, comment: str) -> pydicom.Dataset:
    answer = pydicom.Dataset()
    answer.Status = status
    answer.ErrorComment = comment.encode("ascii", "replace").decode()[: messages.LONGEST_COMMENT].replace("\\", "/")
    return answer


def _only(dataset: pydicom.Dataset, asked: list[Any]) -> pydicom.Dataset:
    """The asked elements of a data set; those that it does not have are empty. PS3.4 C.2.2"""
    kept = pydicom.Dataset()
    kept.SpecificCharacterSet = dataset.SpecificCharacterSet
    for element in asked:
        tag = pydicom.tag.Tag(element)
        if tag in dataset:
            kept[tag] = dataset[tag]
        elif pydicom.datadict.dictionary_has_tag(tag):
            kept.add_new(tag, pydicom.datadict.dictionary_VR(tag).partition(" ")[0], None)
    return kept


def _wanted(identifier: pydicom.Dataset) -> dict[str, Any]:
    """Conditions of a search, {tag: text}, or of a sequence {tag: {tag: text}}."""
    conditions: dict[str, Any] = {}
    for element in identifier:
        name = f"{int(element.tag):08X}"
        if element.VR == "SQ":
            conditions[name] = _wanted(element.value[0]) if element.value else {}
        elif element.keyword != "SpecificCharacterSet":
            several = isinstance(element.value, pydicom.multival.MultiValue)
            conditions[name] = (
                "" if element.is_empty else "\\".join(map(str, element.value if several else [element.value]))
            )
    return conditions
