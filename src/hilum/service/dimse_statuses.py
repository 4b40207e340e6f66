"""The class of workitems and the errors of requests about them, by their statuses of DIMSE."""

from __future__ import annotations

from hilum.errors import HilumError

UPS_PUSH = "1.2.840.10008.5.1.4.34.6.1"  # the class of every workitem, PS3.4 CC.3.1
DUPLICATE = 0x0111  # the status of what is there already, PS3.7 C.4


class WorkitemError(HilumError):
    """A request about a workitem that is refused, or is done already. status: of DIMSE."""

    def __init__(self, status: int, problem: str, where: str, remedy: str = "Retrieve the workitem") -> None:
        super().__init__(problem, where, remedy)
        self.args = (status, problem, where, remedy)
        self.status = status
