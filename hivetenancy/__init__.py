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
    from hivetenancy.cache import ContentIds as ContentIds
    from hivetenancy.cache import TenantCache as TenantCache
    from hivetenancy.clock import Clock as Clock
    from hivetenancy.clock import Instant as Instant
    from hivetenancy.clock import SystemClock as SystemClock
    from hivetenancy.compose import ClusterTenancy as ClusterTenancy
    from hivetenancy.compose import Health as Health
    from hivetenancy.compose import StandaloneTenancy as StandaloneTenancy
    from hivetenancy.compose import Tenancy as Tenancy
    from hivetenancy.connections import ConnectionRegistry as ConnectionRegistry
    from hivetenancy.context import TenantContext as TenantContext
    from hivetenancy.context import spawn as spawn
    from hivetenancy.context import without_tenant as without_tenant
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
    from hivetenancy.handles.registry import HandleRegistry as HandleRegistry
    from hivetenancy.handles.registry import StoredHandles as StoredHandles
    from hivetenancy.hooks import AuditEvent as AuditEvent
    from hivetenancy.hooks import AuditSink as AuditSink
    from hivetenancy.hooks import DecisionHook as DecisionHook
    from hivetenancy.hooks import IsolationEvent as IsolationEvent
    from hivetenancy.hooks import IsolationSink as IsolationSink
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
    from hivetenancy.lifecycle import Receipt as Receipt
    from hivetenancy.lifecycle import TenantDataSource as TenantDataSource
    from hivetenancy.lifecycle import Tombstone as Tombstone
    from hivetenancy.lifecycle.deletion import Lifecycle as Lifecycle
    from hivetenancy.lifecycle.sources import CacheSource as CacheSource
    from hivetenancy.lifecycle.sources import FilesSource as FilesSource
    from hivetenancy.lifecycle.sources import PrefixSource as PrefixSource
    from hivetenancy.lifecycle.store import LifecycleStore as LifecycleStore
    from hivetenancy.limits import CachedLimits as CachedLimits
    from hivetenancy.logs import TenantLogFilter as TenantLogFilter
    from hivetenancy.namespaces import AnyKeyName as AnyKeyName
    from hivetenancy.namespaces import BinaryScope as BinaryScope
    from hivetenancy.namespaces import BitmapName as BitmapName
    from hivetenancy.namespaces import BlobName as BlobName
    from hivetenancy.namespaces import ChannelName as ChannelName
    from hivetenancy.namespaces import CollectionName as CollectionName
    from hivetenancy.namespaces import ConstraintName as ConstraintName
    from hivetenancy.namespaces import FilePath as FilePath
    from hivetenancy.namespaces import FileScope as FileScope
    from hivetenancy.namespaces import GeoName as GeoName
    from hivetenancy.namespaces import GraphNames as GraphNames
    from hivetenancy.namespaces import HashName as HashName
    from hivetenancy.namespaces import HyperLogLogName as HyperLogLogName
    from hivetenancy.namespaces import IndexName as IndexName
    from hivetenancy.namespaces import KeyName as KeyName
    from hivetenancy.namespaces import LabelName as LabelName
    from hivetenancy.namespaces import ListName as ListName
    from hivetenancy.namespaces import LockName as LockName
    from hivetenancy.namespaces import NameScope as NameScope
    from hivetenancy.namespaces import NamespaceManager as NamespaceManager
    from hivetenancy.namespaces import Page as Page
    from hivetenancy.namespaces import PropertyKeyName as PropertyKeyName
    from hivetenancy.namespaces import QueueName as QueueName
    from hivetenancy.namespaces import RelationshipTypeName as RelationshipTypeName
    from hivetenancy.namespaces import Scoped as Scoped
    from hivetenancy.namespaces import ScopedBytes as ScopedBytes
    from hivetenancy.namespaces import SetName as SetName
    from hivetenancy.namespaces import SortedSetName as SortedSetName
    from hivetenancy.namespaces import StreamName as StreamName
    from hivetenancy.namespaces import TenantNames as TenantNames
    from hivetenancy.namespaces import TopicName as TopicName
    from hivetenancy.namespaces.codec import IdScheme as IdScheme
    from hivetenancy.namespaces.codec import UuidForm as UuidForm
    from hivetenancy.namespaces.delivery import Delivery as Delivery
    from hivetenancy.namespaces.files import TenantFiles as TenantFiles
    from hivetenancy.namespaces.manifest import FileManifest as FileManifest
    from hivetenancy.namespaces.prefix import IdentityNamespaces as IdentityNamespaces
    from hivetenancy.namespaces.prefix import PrefixNamespaces as PrefixNamespaces
    from hivetenancy.namespaces.profiles import Profile as Profile
    from hivetenancy.operators import Operator as Operator
    from hivetenancy.operators import OperatorEvent as OperatorEvent
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
    from hivetenancy.pools import TenantPool as TenantPool
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
    from hivetenancy.scopes.commands import CommandScope as CommandScope
    from hivetenancy.scopes.graph import GraphScope as GraphScope
    from hivetenancy.scopes.graph_visitor import GraphVisitor as GraphVisitor
    from hivetenancy.scopes.predicate import TenantPredicate as TenantPredicate
    from hivetenancy.stamps import TenantStamp as TenantStamp
    from hivetenancy.stores.facade import StoreFacade as StoreFacade
    from hivetenancy.stores.guarded import GuardedStore as GuardedStore
    from hivetenancy.stores.operations import StoreOperation as StoreOperation
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
    "AnyKeyName": "hivetenancy.namespaces",
    "AuditEvent": "hivetenancy.hooks",
    "AuditSink": "hivetenancy.hooks",
    "BinaryScope": "hivetenancy.namespaces",
    "BitmapName": "hivetenancy.namespaces",
    "BlobName": "hivetenancy.namespaces",
    "CANONICAL": "hivetenancy.plans",
    "CacheSource": "hivetenancy.lifecycle.sources",
    "CachedAccessKeys": "hivetenancy.access_keys.cached",
    "CachedLimits": "hivetenancy.limits",
    "CalendarPolicy": "hivetenancy.plans",
    "CellSnapshot": "hivetenancy.quota",
    "ChannelName": "hivetenancy.namespaces",
    "Clock": "hivetenancy.clock",
    "ClusterTenancy": "hivetenancy.compose",
    "CollectionName": "hivetenancy.namespaces",
    "CommandScope": "hivetenancy.scopes.commands",
    "ConcurrencyPolicy": "hivetenancy.plans",
    "ConfigurationError": "hivetenancy.errors",
    "ConnectionRegistry": "hivetenancy.connections",
    "ConstraintName": "hivetenancy.namespaces",
    "ContentIds": "hivetenancy.cache",
    "DONE": "hivetenancy.decision",
    "Decision": "hivetenancy.decision",
    "DecisionHook": "hivetenancy.hooks",
    "Delivery": "hivetenancy.namespaces.delivery",
    "DeniedError": "hivetenancy.errors",
    "Dimension": "hivetenancy.ids",
    "DimensionSpec": "hivetenancy.plans",
    "Effect": "hivetenancy.ids",
    "Environment": "hivetenancy.ids",
    "Feed": "hivetenancy.access_keys.feed",
    "FileManifest": "hivetenancy.namespaces.manifest",
    "FilePath": "hivetenancy.namespaces",
    "FileScope": "hivetenancy.namespaces",
    "FilesSource": "hivetenancy.lifecycle.sources",
    "ForbiddenError": "hivetenancy.errors",
    "Freshness": "hivetenancy.access_keys.cached",
    "Function": "hivetenancy.functions",
    "FunctionRegistry": "hivetenancy.functions",
    "FunctionSpec": "hivetenancy.functions",
    "Gate": "hivetenancy.gate",
    "GeoName": "hivetenancy.namespaces",
    "GraphNames": "hivetenancy.namespaces",
    "GraphScope": "hivetenancy.scopes.graph",
    "GraphVisitor": "hivetenancy.scopes.graph_visitor",
    "GuardedStore": "hivetenancy.stores.guarded",
    "HandleRegistry": "hivetenancy.handles.registry",
    "HashName": "hivetenancy.namespaces",
    "Health": "hivetenancy.compose",
    "HiveHub": "hivetenancy.hub.client",
    "HttpOptions": "hivetenancy.adapters.http",
    "HubContractError": "hivetenancy.errors",
    "HubRefusedError": "hivetenancy.errors",
    "HubUnavailableError": "hivetenancy.errors",
    "HyperLogLogName": "hivetenancy.namespaces",
    "IdScheme": "hivetenancy.namespaces.codec",
    "IdentityNamespaces": "hivetenancy.namespaces.prefix",
    "IndexName": "hivetenancy.namespaces",
    "Instant": "hivetenancy.clock",
    "InvalidNameError": "hivetenancy.errors",
    "InvalidRequestError": "hivetenancy.errors",
    "IsolationEvent": "hivetenancy.hooks",
    "IsolationSink": "hivetenancy.hooks",
    "ItemLedger": "hivetenancy.quota",
    "KeyId": "hivetenancy.ids",
    "KeyName": "hivetenancy.namespaces",
    "LabelName": "hivetenancy.namespaces",
    "Lifecycle": "hivetenancy.lifecycle.deletion",
    "LifecycleStore": "hivetenancy.lifecycle.store",
    "ListName": "hivetenancy.namespaces",
    "LocalQuota": "hivetenancy.quota.local",
    "LockName": "hivetenancy.namespaces",
    "LoggingAudit": "hivetenancy.hooks",
    "MemoryItemLedger": "hivetenancy.quota.items",
    "MemoryRateLimiter": "hivetenancy.ratelimit.memory",
    "MemoryUsage": "hivetenancy.usage.memory",
    "MissingTenantError": "hivetenancy.errors",
    "MisuseError": "hivetenancy.errors",
    "NameScope": "hivetenancy.namespaces",
    "NamespaceManager": "hivetenancy.namespaces",
    "NeverFitsError": "hivetenancy.errors",
    "NotFoundError": "hivetenancy.errors",
    "Operator": "hivetenancy.operators",
    "OperatorEvent": "hivetenancy.operators",
    "Page": "hivetenancy.namespaces",
    "Period": "hivetenancy.periods",
    "Permission": "hivetenancy.ids",
    "Permit": "hivetenancy.ratelimit",
    "Plan": "hivetenancy.plans",
    "PrefixNamespaces": "hivetenancy.namespaces.prefix",
    "PrefixSource": "hivetenancy.lifecycle.sources",
    "Principal": "hivetenancy.access_keys",
    "Profile": "hivetenancy.namespaces.profiles",
    "PropertyKeyName": "hivetenancy.namespaces",
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
    "Receipt": "hivetenancy.lifecycle",
    "Refusal": "hivetenancy.decision",
    "RelationshipTypeName": "hivetenancy.namespaces",
    "Reporter": "hivetenancy.usage.reporter",
    "Reservation": "hivetenancy.quota",
    "Scope": "hivetenancy.plans",
    "Scoped": "hivetenancy.namespaces",
    "ScopedBytes": "hivetenancy.namespaces",
    "SetName": "hivetenancy.namespaces",
    "SortedSetName": "hivetenancy.namespaces",
    "StandaloneTenancy": "hivetenancy.compose",
    "StateStore": "hivetenancy.hub.store",
    "StaticLimitError": "hivetenancy.errors",
    "StoreFacade": "hivetenancy.stores.facade",
    "StoreOperation": "hivetenancy.stores.operations",
    "StoreUnavailableError": "hivetenancy.errors",
    "StoredHandles": "hivetenancy.handles.registry",
    "StreamName": "hivetenancy.namespaces",
    "Subject": "hivetenancy.ratelimit",
    "Surface": "hivetenancy.ids",
    "SystemClock": "hivetenancy.clock",
    "Tenancy": "hivetenancy.compose",
    "TenancyError": "hivetenancy.errors",
    "Tenant": "hivetenancy.tenant",
    "TenantCache": "hivetenancy.cache",
    "TenantContext": "hivetenancy.context",
    "TenantDataSource": "hivetenancy.lifecycle",
    "TenantFiles": "hivetenancy.namespaces.files",
    "TenantId": "hivetenancy.ids",
    "TenantLogFilter": "hivetenancy.logs",
    "TenantNames": "hivetenancy.namespaces",
    "TenantPool": "hivetenancy.pools",
    "TenantPredicate": "hivetenancy.scopes.predicate",
    "TenantStamp": "hivetenancy.stamps",
    "Ticket": "hivetenancy.decision",
    "Tombstone": "hivetenancy.lifecycle",
    "TopicName": "hivetenancy.namespaces",
    "UnauthenticatedError": "hivetenancy.errors",
    "UnavailableError": "hivetenancy.errors",
    "UsageReporter": "hivetenancy.usage",
    "UuidForm": "hivetenancy.namespaces.codec",
    "current_tenant": "hivetenancy.tenant",
    "function": "hivetenancy.functions",
    "quota_limit": "hivetenancy.plans",
    "raise_if_refused": "hivetenancy.errors",
    "spawn": "hivetenancy.context",
    "without_tenant": "hivetenancy.context",
}

__all__ = [
    "ANY_RESOURCE",
    "CANONICAL",
    "DONE",
    "AccessKeyValidator",
    "Admission",
    "Amounts",
    "AnyKeyName",
    "AuditEvent",
    "AuditSink",
    "BinaryScope",
    "BitmapName",
    "BlobName",
    "CacheSource",
    "CachedAccessKeys",
    "CachedLimits",
    "CalendarPolicy",
    "CellSnapshot",
    "ChannelName",
    "Clock",
    "ClusterTenancy",
    "CollectionName",
    "CommandScope",
    "ConcurrencyPolicy",
    "ConfigurationError",
    "ConnectionRegistry",
    "ConstraintName",
    "ContentIds",
    "Decision",
    "DecisionHook",
    "Delivery",
    "DeniedError",
    "Dimension",
    "DimensionSpec",
    "Effect",
    "Environment",
    "Feed",
    "FileManifest",
    "FilePath",
    "FileScope",
    "FilesSource",
    "ForbiddenError",
    "Freshness",
    "Function",
    "FunctionRegistry",
    "FunctionSpec",
    "Gate",
    "GeoName",
    "GraphNames",
    "GraphScope",
    "GraphVisitor",
    "GuardedStore",
    "HandleRegistry",
    "HashName",
    "Health",
    "HiveHub",
    "HttpOptions",
    "HubContractError",
    "HubRefusedError",
    "HubUnavailableError",
    "HyperLogLogName",
    "IdScheme",
    "IdentityNamespaces",
    "IndexName",
    "Instant",
    "InvalidNameError",
    "InvalidRequestError",
    "IsolationEvent",
    "IsolationSink",
    "ItemLedger",
    "KeyId",
    "KeyName",
    "LabelName",
    "Lifecycle",
    "LifecycleStore",
    "ListName",
    "LocalQuota",
    "LockName",
    "LoggingAudit",
    "MemoryItemLedger",
    "MemoryRateLimiter",
    "MemoryUsage",
    "MissingTenantError",
    "MisuseError",
    "NameScope",
    "NamespaceManager",
    "NeverFitsError",
    "NotFoundError",
    "Operator",
    "OperatorEvent",
    "Page",
    "Period",
    "Permission",
    "Permit",
    "Plan",
    "PrefixNamespaces",
    "PrefixSource",
    "Principal",
    "Profile",
    "PropertyKeyName",
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
    "Receipt",
    "Refusal",
    "RelationshipTypeName",
    "Reporter",
    "Reservation",
    "Scope",
    "Scoped",
    "ScopedBytes",
    "SetName",
    "SortedSetName",
    "StandaloneTenancy",
    "StateStore",
    "StaticLimitError",
    "StoreFacade",
    "StoreOperation",
    "StoreUnavailableError",
    "StoredHandles",
    "StreamName",
    "Subject",
    "Surface",
    "SystemClock",
    "Tenancy",
    "TenancyError",
    "Tenant",
    "TenantCache",
    "TenantContext",
    "TenantDataSource",
    "TenantFiles",
    "TenantId",
    "TenantLogFilter",
    "TenantNames",
    "TenantPool",
    "TenantPredicate",
    "TenantStamp",
    "Ticket",
    "Tombstone",
    "TopicName",
    "UnauthenticatedError",
    "UnavailableError",
    "UsageReporter",
    "UuidForm",
    "current_tenant",
    "function",
    "quota_limit",
    "raise_if_refused",
    "spawn",
    "without_tenant",
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
