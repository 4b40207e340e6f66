"""The refusal of a method that cannot explain a model."""

from __future__ import annotations

from isocenter.errors import UsageError


class UnfitError(UsageError):
    """A method that cannot explain this model, and why."""

    def __init__(self, method: str, reason: str, remedy: str = "Choose another, such as occlusion, or auto") -> None:
        super().__init__(f"{method} cannot explain this model: {reason}", "--method", remedy)
        self.method, self.reason = method, reason

    def __reduce__(self) -> tuple[object, ...]:
        return UnfitError, (self.method, self.reason, self.remedy)
