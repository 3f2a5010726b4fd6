# SPDX-License-Identifier: Apache-2.0
"""One tree of exceptions, by the error codes of the API.

    NovitaiError
    ├── ConfigurationError     no server or key is known
    ├── ConnectionFailed       the server did not answer, also not after retries
    ├── UnexpectedResponse     the response is not one of the API
    ├── WaitTimedOut           a wait ran out; the instance lives on
    ├── DeleteFailed           `rent` could not delete its instance
    ├── WebhookRefused         a webhook is not authentic
    └── ApiError               the API refused the request: a class for each code, below
        ├── InvalidRequest     400
        ├── Unauthorized       401
        ├── Forbidden          403
        ├── NotFound           404
        ├── Conflict           409
        └── ServerError        5xx

Every exception of a wait has the `instance` as it was last seen. An exception can be pickled.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, ClassVar, Final

if TYPE_CHECKING:
    from novitai_client.models.instances import Instance


class NovitaiError(Exception):
    """Any error of this package.

    Attributes:
        instance_id: The instance that the error is about, if there is one.
        instance: That instance as it was last seen.
        idempotency_key: The key of the request. A request that is sent again with the same key and
            body within 24 hours has no second effect.
    """

    instance_id: str | None = None
    instance: Instance | None = None
    idempotency_key: str | None = None


class ConfigurationError(NovitaiError):
    """No server or API key is known, or a profile cannot be used."""


class ConnectionFailed(NovitaiError):
    """The server could not be reached, or did not answer in time. A change may have been made."""


class UnexpectedResponse(NovitaiError):
    """The response is not one of the API, but for example one of a proxy.

    Attributes:
        status: The status of the response.
    """

    status: int = 0


class WaitTimedOut(NovitaiError, TimeoutError):
    """The time of a wait is over. The instance lives on, and may be billed; `rent` deletes it."""


class DeleteFailed(NovitaiError):
    """The instance of a `rent` could not be deleted. It may live on, and be billed.

    Attributes:
        raised: The exception with which the block ended, if it ended with one.
    """

    instance_id: str
    raised: Exception | None = None


class WebhookRefused(NovitaiError):
    """A webhook is not authentic: a header is missing, the signature is wrong, or it is old."""


class ApiError(NovitaiError):
    """The API refused the request. Unknown codes of newer servers have the class of their status.

    Attributes:
        codes: The codes of this class.
        status: The status of the response.
        code: The error code.
        message: The cause, for people.
        category: The category of the code.
        retryable: Whether the same request may succeed later.
        details: More facts: a list with a `field` and a `message` for each, or an object.
        request_id: The ID of the request; the log of the server has it too.
        retry_after: The seconds to wait before the next request, if the server says so.
    """

    codes: ClassVar[tuple[str, ...]] = ()
    status: int = 0
    code: str = ""
    message: str = ""
    category: str = ""
    retryable: bool = False
    details: list[dict[str, object]] | dict[str, object] | None = None
    request_id: str = ""
    retry_after: float | None = None


class InvalidRequest(ApiError):
    """A value of the request is wrong (400)."""


class Unauthorized(ApiError):
    """The API key is missing, malformed, unknown, expired or revoked (401)."""

    codes = ("UNAUTHORIZED",)


class Forbidden(ApiError):
    """The key lacks the scope that the message names (403)."""

    codes = ("FORBIDDEN",)


class NotFound(ApiError):
    """There is nothing with this ID, or no such route (404)."""

    codes = ("NOT_FOUND",)


class Conflict(ApiError):
    """The present state does not allow this (409)."""


class ServerError(ApiError):
    """The server, its database or Novita failed (5xx)."""


class StatusOutOfReach(Conflict):
    """The instance cannot reach the status of a wait without a new request.

    `details` has the error of the instance, and its `code`.
    """


class ValidationFailed(InvalidRequest):
    """A field, a query parameter or the HTTP request itself is wrong."""

    codes = ("VALIDATION_ERROR",)


class InvalidJson(InvalidRequest):
    """The body is not valid JSON, or not an object."""

    codes = ("INVALID_JSON",)


class InvalidInstanceName(InvalidRequest):
    """The name is missing, too long or has other characters than letters, digits, `-` and `_`."""

    codes = ("INVALID_INSTANCE_NAME",)


class InvalidProductName(InvalidRequest):
    """No product has this name or ID."""

    codes = ("INVALID_PRODUCT_NAME",)


class InvalidTemplateId(InvalidRequest):
    """The template does not exist."""

    codes = ("INVALID_TEMPLATE_ID",)


class InvalidGpuNum(InvalidRequest):
    """`gpuNum` is not an integer from 1 to 8."""

    codes = ("INVALID_GPU_NUM",)


class InvalidRootfsSize(InvalidRequest):
    """`rootfsSize` is not an integer from 20 to 1000."""

    codes = ("INVALID_ROOTFS_SIZE",)


class InvalidWebhookUrl(InvalidRequest):
    """The URL is malformed or leads to a private address."""

    codes = ("INVALID_WEBHOOK_URL",)


class QuoteMismatch(InvalidRequest):
    """The request differs from the one that `quoteId` names."""

    codes = ("QUOTE_MISMATCH",)


class HttpsRequired(Forbidden):
    """In production, the request came over plain HTTP from another machine."""

    codes = ("HTTPS_REQUIRED",)


class HostNotAllowed(Forbidden):
    """Browsers may not reach the server under this name, which is not that of its public URL."""

    codes = ("HOST_NOT_ALLOWED",)


class CrossSiteRequest(Forbidden):
    """A page of another origin may have sent this request with the cookie of a session."""

    codes = ("CROSS_SITE_REQUEST",)


class InstanceNotFound(NotFound):
    """No instance has this ID or name."""

    codes = ("INSTANCE_NOT_FOUND",)


class OperationNotFound(NotFound):
    """No operation has this ID, or it is older than the retention."""

    codes = ("OPERATION_NOT_FOUND",)


class WebhookNotFound(NotFound):
    """No standing webhook has this ID."""

    codes = ("WEBHOOK_NOT_FOUND",)


class BudgetNotFound(NotFound):
    """No budget has this ID."""

    codes = ("BUDGET_NOT_FOUND",)


class DeliveryNotFound(NotFound):
    """No delivery has this ID, or it is older than the retention."""

    codes = ("DELIVERY_NOT_FOUND",)


class KeyNotFound(NotFound):
    """No API key has this ID."""

    codes = ("KEY_NOT_FOUND",)


class SessionNotFound(NotFound):
    """The request has no session, but an API key."""

    codes = ("SESSION_NOT_FOUND",)


class CacheNotFound(NotFound):
    """No cache has this name."""

    codes = ("CACHE_NOT_FOUND",)


class CacheKeyNotFound(NotFound):
    """The cache has no entry with this key."""

    codes = ("CACHE_KEY_NOT_FOUND",)


class UpstreamInstanceNotFound(NotFound):
    """The last complete listing of the account has no instance with this ID."""

    codes = ("UPSTREAM_INSTANCE_NOT_FOUND",)


class MethodNotAllowed(ApiError):
    """The path does not have this method."""

    codes = ("METHOD_NOT_ALLOWED",)


class RequestTimeout(ApiError):
    """The request could not be handled, or was not received, in time."""

    codes = ("REQUEST_TIMEOUT",)


class InvalidState(Conflict):
    """The state of the instance or operation does not allow this."""

    codes = ("INVALID_STATE",)


class OperationInProgress(Conflict):
    """Another operation of the instance is running."""

    codes = ("OPERATION_IN_PROGRESS",)


class AmbiguousName(Conflict):
    """Several live instances have this name."""

    codes = ("AMBIGUOUS_NAME",)


class InstanceReleased(Conflict):
    """The record was released; novitai does not manage its instance."""

    codes = ("INSTANCE_RELEASED",)


class NoCapacity(Conflict):
    """The product exists, but no offer fits now."""

    codes = ("NO_CAPACITY",)


class QuoteExpired(Conflict):
    """The quote is older than 5 minutes, or no quote has this ID."""

    codes = ("QUOTE_EXPIRED",)


class PriceAboveQuote(Conflict):
    """The offers of the quote that are in stock cost more now."""

    codes = ("PRICE_ABOVE_QUOTE",)


class BudgetExceeded(Conflict):
    """A budget with `onLimit` `refuse` or `stop` has too little left for the first hour."""

    codes = ("BUDGET_EXCEEDED",)


class KeyLimitExceeded(Conflict):
    """A limit of an API key does not allow this; `details` has the key and the limit."""

    codes = ("KEY_LIMIT_EXCEEDED",)


class InstanceProtected(Conflict):
    """The instance is protected, so it is not deleted."""

    codes = ("INSTANCE_PROTECTED",)


class LimitReached(Conflict):
    """The instance has spent its `maxSpend`, so it is not started."""

    codes = ("LIMIT_REACHED",)


class NothingToKeep(Conflict):
    """Nothing that `keep` can put off would stop the instance."""

    codes = ("NOTHING_TO_KEEP",)


class AlreadyManaged(Conflict):
    """Another record has this upstream instance; `details` has its ID."""

    codes = ("ALREADY_MANAGED",)


class ManagedElsewhere(Conflict):
    """The upstream instance has the marker of another installation."""

    codes = ("MANAGED_ELSEWHERE",)


class NothingToConfirm(Conflict):
    """The account is not held, or another set is missing now."""

    codes = ("NOTHING_TO_CONFIRM",)


class TooManyBudgets(Conflict):
    """There are 100 budgets, which is the most."""

    codes = ("TOO_MANY_BUDGETS",)


class TooManyWebhooks(Conflict):
    """100 standing webhooks exist."""

    codes = ("TOO_MANY_WEBHOOKS",)


class IdempotencyInProgress(Conflict):
    """The first request with this `Idempotency-Key` is still running."""

    codes = ("IDEMPOTENCY_IN_PROGRESS",)


class IdempotencyNotReplayable(Conflict):
    """The first response showed a secret, so it was not stored."""

    codes = ("IDEMPOTENCY_NOT_REPLAYABLE",)


class PreconditionFailed(ApiError):
    """The instance has changed since it was read: no tag of `If-Match` is its `ETag`."""

    codes = ("PRECONDITION_FAILED",)


class PayloadTooLarge(ApiError):
    """The body is larger than 1 MiB."""

    codes = ("PAYLOAD_TOO_LARGE",)


class UnsupportedMediaType(ApiError):
    """The body has a media type that the route does not take."""

    codes = ("UNSUPPORTED_MEDIA_TYPE",)


class IdempotencyKeyReused(ApiError):
    """This `Idempotency-Key` was used with another body."""

    codes = ("IDEMPOTENCY_KEY_REUSED",)


class RateLimited(ApiError):
    """Too many requests of this API key, or failed authentications of this address."""

    codes = ("RATE_LIMIT_EXCEEDED",)


class InternalServerError(ServerError):
    """A defect in novitai."""

    codes = ("INTERNAL_SERVER_ERROR",)


class StoreCorrupt(ServerError):
    """The database file is damaged, deleted or replaced."""

    codes = ("STORE_CORRUPT",)


class CommitUnknown(ServerError):
    """The connection to the database broke during the commit."""

    codes = ("COMMIT_UNKNOWN",)


class UpstreamFailed(ServerError):
    """Novita answered with an error."""

    codes = ("EXTERNAL_API_ERROR",)


class CircuitBreakerOpen(ServerError):
    """Calls to Novita keep failing, so none is made for a while."""

    codes = ("CIRCUIT_BREAKER_OPEN",)


class Overloaded(ServerError):
    """The process has as many open requests of this kind as it allows."""

    codes = ("OVERLOADED",)


class ShuttingDown(ServerError):
    """The process is ending."""

    codes = ("SHUTTING_DOWN",)


class StoreUnavailable(ServerError):
    """The database does not answer or takes no writes."""

    codes = ("STORE_UNAVAILABLE",)


class StoreBusy(ServerError):
    """A lock in the database was not released in time."""

    codes = ("STORE_BUSY",)


class StorageFull(ServerError):
    """The disk of the database is full."""

    codes = ("STORAGE_FULL",)


class UpstreamTimeout(ServerError):
    """Novita did not answer in time."""

    codes = ("UPSTREAM_TIMEOUT",)


def _classes(base: type[ApiError]) -> Mapping[str, type[ApiError]]:
    found: dict[str, type[ApiError]] = dict.fromkeys(base.codes, base)
    for kind in base.__subclasses__():
        if kind is not StatusOutOfReach:
            found.update(_classes(kind))
    return found


CLASSES: Final = _classes(ApiError)
"""The class of each error code."""

_BY_STATUS: Final[Mapping[int, type[ApiError]]] = {
    400: InvalidRequest,
    401: Unauthorized,
    403: Forbidden,
    404: NotFound,
    409: Conflict,
}


def class_of(code: str, status: int) -> type[ApiError]:
    """Return the class for an error; for an unknown code, that of the status."""
    return CLASSES.get(code) or _BY_STATUS.get(status, ServerError if status >= 500 else ApiError)
