"""Whose name is this?"""

from .protocol import (
    CollectionKind,
    CollectionName,
    KeyKind,
    KeyName,
    NameScope,
    NamespaceManager,
    QueueKind,
    QueueName,
    Scoped,
    StreamKind,
    StreamName,
    TenantNames,
    TopicKind,
    TopicName,
)

__all__ = [
    "CollectionKind",
    "CollectionName",
    "KeyKind",
    "KeyName",
    "NameScope",
    "NamespaceManager",
    "QueueKind",
    "QueueName",
    "Scoped",
    "StreamKind",
    "StreamName",
    "TenantNames",
    "TopicKind",
    "TopicName",
]
