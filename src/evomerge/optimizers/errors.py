"""Errors of the search, one tree."""


class OptimizerError(Exception):
    """Root of everything the optimizers raise."""


class InvalidParameterError(OptimizerError, ValueError):
    """A search parameter is outside its range; names the parameter and the value."""

    def __init__(self, name: str, value: object, reason: str) -> None:
        super().__init__(f"{name}={value!r}: {reason}")
        self.name = name
        self.value = value
        self.reason = reason


class ProtocolError(OptimizerError):
    """`ask` and `tell` were called out of order, or told candidates that were not asked."""


class ReplayMismatchError(OptimizerError):
    """A recorded candidate differs from the one the rebuilt optimizer asks for."""
