"""hivetenancy makes a Python data server multi-tenant.

Everything that a host needs by name is here; nothing is loaded before it is asked for, so that importing the package
costs next to nothing and needs neither pydantic, httpx nor a framework.
"""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from hivetenancy.access_keys import AccessKeyValidator as AccessKeyValidator
    from hivetenancy.access_keys import Principal as Principal
    from hivetenancy.access_keys.cached import CachedAccessKeys as CachedAccessKeys
    from hivetenancy.access_keys.cached import Freshness as Freshness
    from hivetenancy.access_keys.feed import Feed as Feed
    from hivetenancy.adapters.http import HttpOptions as HttpOptions
    from hivetenancy.clock import Clock as Clock
    from hivetenancy.clock import Instant as Instant
    from hivetenancy.clock import SystemClock as SystemClock
    from hivetenancy.compose import ClusterTenancy as ClusterTenancy
    from hivetenancy.compose import Health as Health
    from hivetenancy.compose import StandaloneTenancy as StandaloneTenancy
    from hivetenancy.compose import Tenancy as Tenancy
    from hivetenancy.connections import ConnectionRegistry as ConnectionRegistry
    from hivetenancy.context import TenantContext as TenantContext
    from hivetenancy.decision import DONE as DONE
    from hivetenancy.decision import Decision as Decision
    from hivetenancy.decision import Reason as Reason
    from hivetenancy.decision import Refusal as Refusal
    from hivetenancy.decision import Ticket as Ticket
    from hivetenancy.errors import ConfigurationError as ConfigurationError
    from hivetenancy.errors import DeniedError as DeniedError
    from hivetenancy.errors import ForbiddenError as ForbiddenError
    from hivetenancy.errors import HubContractError as HubContractError
    from hivetenancy.errors import HubRefusedError as HubRefusedError
    from hivetenancy.errors import HubUnavailableError as HubUnavailableError
    from hivetenancy.errors import InvalidNameError as InvalidNameError
    from hivetenancy.errors import InvalidRequestError as InvalidRequestError
    from hivetenancy.errors import MissingTenantError as MissingTenantError
    from hivetenancy.errors import MisuseError as MisuseError
    from hivetenancy.errors import NeverFitsError as NeverFitsError
    from hivetenancy.errors import NotFoundError as NotFoundError
    from hivetenancy.errors import QuotaExceededError as QuotaExceededError
    from hivetenancy.errors import RateLimitedError as RateLimitedError
    from hivetenancy.errors import StaticLimitError as StaticLimitError
    from hivetenancy.errors import StoreUnavailableError as StoreUnavailableError
    from hivetenancy.errors import TenancyError as TenancyError
    from hivetenancy.errors import UnauthenticatedError as UnauthenticatedError
    from hivetenancy.errors import UnavailableError as UnavailableError
    from hivetenancy.errors import raise_if_refused as raise_if_refused
    from hivetenancy.functions import Function as Function
    from hivetenancy.functions import FunctionRegistry as FunctionRegistry
    from hivetenancy.functions import FunctionSpec as FunctionSpec
    from hivetenancy.functions import function as function
    from hivetenancy.gate import Admission as Admission
    from hivetenancy.gate import Gate as Gate
    from hivetenancy.hooks import AuditEvent as AuditEvent
    from hivetenancy.hooks import AuditSink as AuditSink
    from hivetenancy.hooks import DecisionHook as DecisionHook
    from hivetenancy.hooks import LoggingAudit as LoggingAudit
    from hivetenancy.hub.client import HiveHub as HiveHub
    from hivetenancy.hub.store import StateStore as StateStore
    from hivetenancy.ids import Amounts as Amounts
    from hivetenancy.ids import Dimension as Dimension
    from hivetenancy.ids import Effect as Effect
    from hivetenancy.ids import Environment as Environment
    from hivetenancy.ids import KeyId as KeyId
    from hivetenancy.ids import Permission as Permission
    from hivetenancy.ids import Surface as Surface
    from hivetenancy.ids import TenantId as TenantId
    from hivetenancy.limits import CachedLimits as CachedLimits
    from hivetenancy.logs import TenantLogFilter as TenantLogFilter
    from hivetenancy.namespaces import CollectionName as CollectionName
    from hivetenancy.namespaces import KeyName as KeyName
    from hivetenancy.namespaces import NamespaceManager as NamespaceManager
    from hivetenancy.namespaces import QueueName as QueueName
    from hivetenancy.namespaces import Scoped as Scoped
    from hivetenancy.namespaces import StreamName as StreamName
    from hivetenancy.namespaces import TenantNames as TenantNames
    from hivetenancy.namespaces import TopicName as TopicName
    from hivetenancy.namespaces.prefix import IdentityNamespaces as IdentityNamespaces
    from hivetenancy.namespaces.prefix import PrefixNamespaces as PrefixNamespaces
    from hivetenancy.periods import Period as Period
    from hivetenancy.plans import ANY_RESOURCE as ANY_RESOURCE
    from hivetenancy.plans import CANONICAL as CANONICAL
    from hivetenancy.plans import CalendarPolicy as CalendarPolicy
    from hivetenancy.plans import ConcurrencyPolicy as ConcurrencyPolicy
    from hivetenancy.plans import DimensionSpec as DimensionSpec
    from hivetenancy.plans import Plan as Plan
    from hivetenancy.plans import QuotaKind as QuotaKind
    from hivetenancy.plans import QuotaLimit as QuotaLimit
    from hivetenancy.plans import RateLimits as RateLimits
    from hivetenancy.plans import RatePolicy as RatePolicy
    from hivetenancy.plans import Scope as Scope
    from hivetenancy.plans import quota_limit as quota_limit
    from hivetenancy.quota import CellSnapshot as CellSnapshot
    from hivetenancy.quota import ItemLedger as ItemLedger
    from hivetenancy.quota import QuotaManager as QuotaManager
    from hivetenancy.quota import Reservation as Reservation
    from hivetenancy.quota.items import MemoryItemLedger as MemoryItemLedger
    from hivetenancy.quota.local import LocalQuota as LocalQuota
    from hivetenancy.ratelimit import Permit as Permit
    from hivetenancy.ratelimit import RateLimiter as RateLimiter
    from hivetenancy.ratelimit import Subject as Subject
    from hivetenancy.ratelimit.memory import MemoryRateLimiter as MemoryRateLimiter
    from hivetenancy.tenant import Tenant as Tenant
    from hivetenancy.tenant import current_tenant as current_tenant
    from hivetenancy.usage import UsageReporter as UsageReporter
    from hivetenancy.usage.memory import MemoryUsage as MemoryUsage
    from hivetenancy.usage.reporter import Reporter as Reporter

_HOMES = {
    "ANY_RESOURCE": "hivetenancy.plans",
    "AccessKeyValidator": "hivetenancy.access_keys",
    "Admission": "hivetenancy.gate",
    "Amounts": "hivetenancy.ids",
    "AuditEvent": "hivetenancy.hooks",
    "AuditSink": "hivetenancy.hooks",
    "CANONICAL": "hivetenancy.plans",
    "CachedAccessKeys": "hivetenancy.access_keys.cached",
    "CachedLimits": "hivetenancy.limits",
    "CalendarPolicy": "hivetenancy.plans",
    "CellSnapshot": "hivetenancy.quota",
    "Clock": "hivetenancy.clock",
    "ClusterTenancy": "hivetenancy.compose",
    "CollectionName": "hivetenancy.namespaces",
    "ConcurrencyPolicy": "hivetenancy.plans",
    "ConfigurationError": "hivetenancy.errors",
    "ConnectionRegistry": "hivetenancy.connections",
    "DONE": "hivetenancy.decision",
    "Decision": "hivetenancy.decision",
    "DecisionHook": "hivetenancy.hooks",
    "DeniedError": "hivetenancy.errors",
    "Dimension": "hivetenancy.ids",
    "DimensionSpec": "hivetenancy.plans",
    "Effect": "hivetenancy.ids",
    "Environment": "hivetenancy.ids",
    "Feed": "hivetenancy.access_keys.feed",
    "ForbiddenError": "hivetenancy.errors",
    "Freshness": "hivetenancy.access_keys.cached",
    "Function": "hivetenancy.functions",
    "FunctionRegistry": "hivetenancy.functions",
    "FunctionSpec": "hivetenancy.functions",
    "Gate": "hivetenancy.gate",
    "Health": "hivetenancy.compose",
    "HiveHub": "hivetenancy.hub.client",
    "HttpOptions": "hivetenancy.adapters.http",
    "HubContractError": "hivetenancy.errors",
    "HubRefusedError": "hivetenancy.errors",
    "HubUnavailableError": "hivetenancy.errors",
    "IdentityNamespaces": "hivetenancy.namespaces.prefix",
    "Instant": "hivetenancy.clock",
    "InvalidNameError": "hivetenancy.errors",
    "InvalidRequestError": "hivetenancy.errors",
    "ItemLedger": "hivetenancy.quota",
    "KeyId": "hivetenancy.ids",
    "KeyName": "hivetenancy.namespaces",
    "LocalQuota": "hivetenancy.quota.local",
    "LoggingAudit": "hivetenancy.hooks",
    "MemoryItemLedger": "hivetenancy.quota.items",
    "MemoryRateLimiter": "hivetenancy.ratelimit.memory",
    "MemoryUsage": "hivetenancy.usage.memory",
    "MissingTenantError": "hivetenancy.errors",
    "MisuseError": "hivetenancy.errors",
    "NamespaceManager": "hivetenancy.namespaces",
    "NeverFitsError": "hivetenancy.errors",
    "NotFoundError": "hivetenancy.errors",
    "Period": "hivetenancy.periods",
    "Permission": "hivetenancy.ids",
    "Permit": "hivetenancy.ratelimit",
    "Plan": "hivetenancy.plans",
    "PrefixNamespaces": "hivetenancy.namespaces.prefix",
    "Principal": "hivetenancy.access_keys",
    "QueueName": "hivetenancy.namespaces",
    "QuotaExceededError": "hivetenancy.errors",
    "QuotaKind": "hivetenancy.plans",
    "QuotaLimit": "hivetenancy.plans",
    "QuotaManager": "hivetenancy.quota",
    "RateLimitedError": "hivetenancy.errors",
    "RateLimiter": "hivetenancy.ratelimit",
    "RateLimits": "hivetenancy.plans",
    "RatePolicy": "hivetenancy.plans",
    "Reason": "hivetenancy.decision",
    "Refusal": "hivetenancy.decision",
    "Reporter": "hivetenancy.usage.reporter",
    "Reservation": "hivetenancy.quota",
    "Scope": "hivetenancy.plans",
    "Scoped": "hivetenancy.namespaces",
    "StandaloneTenancy": "hivetenancy.compose",
    "StateStore": "hivetenancy.hub.store",
    "StaticLimitError": "hivetenancy.errors",
    "StoreUnavailableError": "hivetenancy.errors",
    "StreamName": "hivetenancy.namespaces",
    "Subject": "hivetenancy.ratelimit",
    "Surface": "hivetenancy.ids",
    "SystemClock": "hivetenancy.clock",
    "Tenancy": "hivetenancy.compose",
    "TenancyError": "hivetenancy.errors",
    "Tenant": "hivetenancy.tenant",
    "TenantContext": "hivetenancy.context",
    "TenantId": "hivetenancy.ids",
    "TenantLogFilter": "hivetenancy.logs",
    "TenantNames": "hivetenancy.namespaces",
    "Ticket": "hivetenancy.decision",
    "TopicName": "hivetenancy.namespaces",
    "UnauthenticatedError": "hivetenancy.errors",
    "UnavailableError": "hivetenancy.errors",
    "UsageReporter": "hivetenancy.usage",
    "current_tenant": "hivetenancy.tenant",
    "function": "hivetenancy.functions",
    "quota_limit": "hivetenancy.plans",
    "raise_if_refused": "hivetenancy.errors",
}

__all__ = [
    "ANY_RESOURCE",
    "CANONICAL",
    "DONE",
    "AccessKeyValidator",
    "Admission",
    "Amounts",
    "AuditEvent",
    "AuditSink",
    "CachedAccessKeys",
    "CachedLimits",
    "CalendarPolicy",
    "CellSnapshot",
    "Clock",
    "ClusterTenancy",
    "CollectionName",
    "ConcurrencyPolicy",
    "ConfigurationError",
    "ConnectionRegistry",
    "Decision",
    "DecisionHook",
    "DeniedError",
    "Dimension",
    "DimensionSpec",
    "Effect",
    "Environment",
    "Feed",
    "ForbiddenError",
    "Freshness",
    "Function",
    "FunctionRegistry",
    "FunctionSpec",
    "Gate",
    "Health",
    "HiveHub",
    "HttpOptions",
    "HubContractError",
    "HubRefusedError",
    "HubUnavailableError",
    "IdentityNamespaces",
    "Instant",
    "InvalidNameError",
    "InvalidRequestError",
    "ItemLedger",
    "KeyId",
    "KeyName",
    "LocalQuota",
    "LoggingAudit",
    "MemoryItemLedger",
    "MemoryRateLimiter",
    "MemoryUsage",
    "MissingTenantError",
    "MisuseError",
    "NamespaceManager",
    "NeverFitsError",
    "NotFoundError",
    "Period",
    "Permission",
    "Permit",
    "Plan",
    "PrefixNamespaces",
    "Principal",
    "QueueName",
    "QuotaExceededError",
    "QuotaKind",
    "QuotaLimit",
    "QuotaManager",
    "RateLimitedError",
    "RateLimiter",
    "RateLimits",
    "RatePolicy",
    "Reason",
    "Refusal",
    "Reporter",
    "Reservation",
    "Scope",
    "Scoped",
    "StandaloneTenancy",
    "StateStore",
    "StaticLimitError",
    "StoreUnavailableError",
    "StreamName",
    "Subject",
    "Surface",
    "SystemClock",
    "Tenancy",
    "TenancyError",
    "Tenant",
    "TenantContext",
    "TenantId",
    "TenantLogFilter",
    "TenantNames",
    "Ticket",
    "TopicName",
    "UnauthenticatedError",
    "UnavailableError",
    "UsageReporter",
    "current_tenant",
    "function",
    "quota_limit",
    "raise_if_refused",
]


def __getattr__(name: str) -> object:
    """Load *name* from the module that defines it."""
    try:
        home = _HOMES[name]
    except KeyError:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}") from None
    value: object = getattr(import_module(home), name)
    globals()[name] = value
    return value


def __dir__() -> list[str]:
    """Return the public names."""
    return __all__
