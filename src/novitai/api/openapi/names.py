# SPDX-License-Identifier: Apache-2.0
"""Names of schemas in the OpenAPI document: plain nouns, for generated clients.

The models have longer names in the source, which tell them from the entities of `novitai.domain`.
"""

from __future__ import annotations

from typing import Any, Final

_PREFIX: Final = "#/components/schemas/"

NOUNS: Final = {
    "AccountResponse": "Account",
    "ActorView": "Actor",
    "AdoptInstanceRequest": "Adoption",
    "AttemptView": "DeliveryAttempt",
    "AutoStopPatch": "AutoStopChange",
    "AutoStopRequest": "NewAutoStop",
    "AutoStopView": "AutoStop",
    "BudgetScopeRequest": "NewBudgetScope",
    "BudgetScopeView": "BudgetScope",
    "BudgetTag": "NewBudgetTag",
    "BudgetTagView": "BudgetTag",
    "BudgetView": "Budget",
    "CacheChangedResponse": "CacheRemoval",
    "CacheDeletedResponse": "CacheKeyRemoval",
    "CacheKeyView": "CacheKey",
    "CacheStatsView": "CacheStats",
    "CachesResponse": "CacheOverview",
    "ChangeBudgetRequest": "BudgetChange",
    "ChangeInstanceRequest": "InstanceChange",
    "ChangeWebhookRequest": "WebhookChange",
    "ClearCacheRequest": "CacheSelection",
    "ClockView": "Clock",
    "ConfirmAccountRequest": "AccountConfirmation",
    "ConfirmAccountResponse": "AccountConfirmationResult",
    "CostRowView": "CostRow",
    "CostSummaryResponse": "CostSummary",
    "CostView": "Cost",
    "CostsResponse": "CostReport",
    "CpuView": "Cpu",
    "CreateBudgetRequest": "NewBudget",
    "CreateInstanceRequest": "NewInstance",
    "CreateInstanceResponse": "AcceptedInstance",
    "CreateKeyRequest": "NewKey",
    "CreateKeyResponse": "RevealedKey",
    "CreateSessionRequest": "NewSession",
    "CreateWebhookRequest": "NewWebhook",
    "CreatedBy": "Creator",
    "CredentialsResponse": "Credentials",
    "CurrentKeyResponse": "CurrentKey",
    "DeliveryView": "Delivery",
    "ErrorResponse": "ErrorEnvelope",
    "EventView": "Event",
    "HealthCheckResponse": "Health",
    "InstanceCostResponse": "InstanceCost",
    "InstanceDetails": "Instance",
    "InstanceErrorView": "InstanceError",
    "InstanceNameRequest": "InstanceName",
    "KeepRequest": "Extension",
    "KeyBudgetRequest": "NewKeyBudget",
    "KeyBudgetView": "KeyBudget",
    "KeyLimitsRequest": "NewKeyLimits",
    "KeyLimitsView": "KeyLimits",
    "KeyView": "Key",
    "LastUsedRequest": "LastUse",
    "LeftAlone": "SkippedInstance",
    "LimitsPatch": "LimitsChange",
    "LimitsRequest": "NewLimits",
    "LimitsView": "Limits",
    "ListBudgetsResponse": "BudgetList",
    "ListDeliveriesResponse": "DeliveryList",
    "ListEventsResponse": "EventList",
    "ListInstancesResponse": "InstanceList",
    "ListKeysResponse": "KeyList",
    "ListOperationsResponse": "OperationList",
    "ListProductsResponse": "ProductList",
    "ListRegionsResponse": "RegionList",
    "ListTemplatesResponse": "TemplateList",
    "ListUnmanagedResponse": "UnmanagedInstanceList",
    "ListWebhooksResponse": "WebhookList",
    "LoginCodeResponse": "LoginCode",
    "MetricsResponse": "Metrics",
    "NoFields": "EmptyBody",
    "OperationErrorView": "OperationError",
    "OperationView": "Operation",
    "PortMappingView": "PortMapping",
    "PortView": "Port",
    "ProbeResponse": "Probe",
    "ProductView": "Product",
    "ProtectedRequest": "NewProtection",
    "ProtectedView": "Protection",
    "QuoteRequest": "NewQuote",
    "QuoteResponse": "Quote",
    "ReconciliationResponse": "Reconciliation",
    "RegionView": "Region",
    "ReplayRequest": "NewReplay",
    "ReplayResponse": "Replay",
    "SessionResponse": "Session",
    "SpanView": "Span",
    "StopAllResponse": "StopOverview",
    "StopBegun": "StoppingInstance",
    "SyncResponse": "AcceptedSync",
    "TemplateView": "Template",
    "UtilizationResponse": "Utilization",
    "VerbResponse": "AcceptedOperation",
    "WebhookTestResponse": "WebhookTest",
    "WebhookView": "Webhook",
}
"""The nouns of models with another name in the source."""


def with_nouns(document: dict[str, Any]) -> dict[str, Any]:
    """Return the document with the nouns as names of its schemas."""
    schemas = document["components"]["schemas"]
    named = {NOUNS.get(name, name): schema for name, schema in schemas.items()}
    if len(named) < len(schemas):
        raise ValueError("two schemas have the same name")
    components = {**document["components"], "schemas": dict(sorted(named.items()))}
    renamed: dict[str, Any] = _renamed({**document, "components": components})
    return renamed


def _renamed(part: Any) -> Any:
    """Rename references and titles."""
    if isinstance(part, list):
        return [_renamed(one) for one in part]
    if not isinstance(part, dict):
        return part
    return {name: _reference(name, value) for name, value in part.items()}


def _reference(name: str, value: Any) -> Any:
    if isinstance(value, str):
        if name == "$ref" and value.startswith(_PREFIX):
            model = value.removeprefix(_PREFIX)
            return f"{_PREFIX}{NOUNS.get(model, model)}"
        return NOUNS.get(value, value) if name == "title" else value
    return _renamed(value)
