"""Errors: one class per canonical code, with google.rpc details decoded."""

from __future__ import annotations

import enum

import grpc


class Code(str, enum.Enum):
    """Canonical codes; a member equals its name: `e.code == "NOT_FOUND"`."""

    CANCELLED = "CANCELLED"
    UNKNOWN = "UNKNOWN"
    INVALID_ARGUMENT = "INVALID_ARGUMENT"
    DEADLINE_EXCEEDED = "DEADLINE_EXCEEDED"
    NOT_FOUND = "NOT_FOUND"
    ALREADY_EXISTS = "ALREADY_EXISTS"
    PERMISSION_DENIED = "PERMISSION_DENIED"
    RESOURCE_EXHAUSTED = "RESOURCE_EXHAUSTED"
    FAILED_PRECONDITION = "FAILED_PRECONDITION"
    ABORTED = "ABORTED"
    OUT_OF_RANGE = "OUT_OF_RANGE"
    UNIMPLEMENTED = "UNIMPLEMENTED"
    INTERNAL = "INTERNAL"
    UNAVAILABLE = "UNAVAILABLE"
    DATA_LOSS = "DATA_LOSS"
    UNAUTHENTICATED = "UNAUTHENTICATED"

    def __str__(self):
        return self.value


class ShardplaneError(Exception):
    """Whatever goes wrong. `code`, `message` and `details`, a dict:

    `reason` and `metadata` (of ErrorInfo) always; where the error has them
    `field_violations` and `precondition_violations` (lists of dicts),
    `resource` (a dict) and `retry_seconds`.
    """

    code = Code.UNKNOWN

    def __init__(self, message: str, details: dict | None = None,
                 code: Code | None = None) -> None:
        super().__init__(message)
        self.message = message
        self.details = {"reason": "", "metadata": {}, **(details or {})}
        if code is not None:
            self.code = code

    @property
    def reason(self) -> str:
        """Of ErrorInfo: a stable word in capitals."""
        return self.details["reason"]

    def __str__(self):
        return f"{self.code}: {self.message}"


class InvalidArgumentError(ShardplaneError, ValueError):
    """Malformed or contradictory: a module, plan, mesh or tensor."""

    code = Code.INVALID_ARGUMENT


class PlanTypeError(InvalidArgumentError, TypeError):
    """A plan, a mesh or a loss of a type that cannot be one."""


class UnimplementedError(ShardplaneError, NotImplementedError):
    """An operator, style or option that this release lacks."""

    code = Code.UNIMPLEMENTED


class NotFoundError(ShardplaneError):
    """No such resource or name."""

    code = Code.NOT_FOUND


class AlreadyExistsError(ShardplaneError):
    """The name is taken."""

    code = Code.ALREADY_EXISTS


class FailedPreconditionError(ShardplaneError):
    """A right request in the wrong state."""

    code = Code.FAILED_PRECONDITION


class AbortedError(ShardplaneError):
    """A stale epoch or etag, or a step number out of turn."""

    code = Code.ABORTED


class UnavailableError(ShardplaneError):
    """Workers or the coordinator cannot be reached now."""

    code = Code.UNAVAILABLE


class DeadlineExceededError(ShardplaneError, TimeoutError):
    """It took too long."""

    code = Code.DEADLINE_EXCEEDED


class ResourceExhaustedError(ShardplaneError):
    """A message too large, or a queue that is full."""

    code = Code.RESOURCE_EXHAUSTED


class PermissionDeniedError(ShardplaneError):
    """The wrong role."""

    code = Code.PERMISSION_DENIED


class UnauthenticatedError(ShardplaneError):
    """No credentials, or bad ones."""

    code = Code.UNAUTHENTICATED


class DataLossError(ShardplaneError):
    """Bytes that fail their checksum."""

    code = Code.DATA_LOSS


class InternalError(ShardplaneError):
    """A fault of Shardplane's own."""

    code = Code.INTERNAL


_CLASSES = {
    error.code: error
    for error in (
        InvalidArgumentError, UnimplementedError, NotFoundError,
        AlreadyExistsError, FailedPreconditionError, AbortedError,
        UnavailableError, DeadlineExceededError, ResourceExhaustedError,
        PermissionDeniedError, UnauthenticatedError, DataLossError,
        InternalError)
}


def unimplemented(name, what=""):
    """The error for what the contract has and this release lacks."""
    message = f"{name} is not supported by this release"
    return UnimplementedError(message + (f": {what}" if what else ""),
                              {"reason": "NOT_IN_THIS_RELEASE",
                               "metadata": {"name": name}})


def invalid(message, *, reason="INVALID_ARGUMENT", cls=InvalidArgumentError,
            **metadata):
    return cls(message, {"reason": reason, "metadata": metadata})


def _status_of(error):
    """The google.rpc.Status in the trailers, or None."""
    from google.rpc import status_pb2
    for key, value in error.trailing_metadata() or ():
        if key == "grpc-status-details-bin":
            try:
                return status_pb2.Status.FromString(value)
            except Exception:  # a stranger's bytes; the code still stands
                return None
    return None


def _violations(violations, *names):
    return [{name: getattr(violation, name) for name in names}
            for violation in violations]


def _add_detail(details, packed):
    from google.rpc import error_details_pb2 as rpc
    kind = packed.type_url.rsplit(".", 1)[-1]
    message = getattr(rpc, kind, lambda: None)()
    if message is None or not packed.Unpack(message):
        return
    if kind == "ErrorInfo":
        details.update(reason=message.reason, domain=message.domain,
                       metadata=dict(message.metadata))
    elif kind == "BadRequest":
        details["field_violations"] = _violations(
            message.field_violations, "field", "description")
    elif kind == "PreconditionFailure":
        details["precondition_violations"] = _violations(
            message.violations, "type", "subject", "description")
    elif kind == "ResourceInfo":
        details["resource"] = {"type": message.resource_type,
                               "name": message.resource_name,
                               "description": message.description}
    elif kind == "RetryInfo":
        details["retry_seconds"] = message.retry_delay.ToTimedelta(
        ).total_seconds()


def from_rpc(error):
    """The ShardplaneError for a grpc.RpcError."""
    code = Code[error.code().name] if isinstance(
        error, grpc.Call) else Code.UNKNOWN
    details = {}
    status = _status_of(error)
    for packed in status.details if status else ():
        _add_detail(details, packed)
    message = (status.message if status else "") or error.details() or str(
        code)
    return _CLASSES.get(code, ShardplaneError)(message, details, code)
