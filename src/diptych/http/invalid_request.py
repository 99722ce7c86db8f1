"""The faults of a request, with the places where they were sent."""

from __future__ import annotations

from collections.abc import Iterable

from diptych.errors import Fault, InvalidMessage, steps_of


class InvalidRequest(InvalidMessage):
    """A request whose fields are faulty, which knows where they were sent.

    ``parameters`` are the names of fields in the path or the query string; the others are in the body. ``body`` is
    the field that the whole body is, if there is one.
    """

    def __init__(
        self, message: str, faults: Iterable[Fault], parameters: Iterable[str], body: str | None = None
    ) -> None:
        super().__init__(message, faults)
        self.parameters = frozenset(parameters)
        self.body = body

    @classmethod
    def of_parameters(cls, error: InvalidMessage) -> InvalidRequest:
        """Returns the error of a request that has parameters alone."""
        return cls(error.message, error.faults, names_in(error.faults))


def names_in(faults: Iterable[Fault]) -> set[str]:
    """Returns the names of the faulty fields, each that of the whole field that it is in."""
    return {"".join(steps_of(fault)[:1]) for fault in faults}
