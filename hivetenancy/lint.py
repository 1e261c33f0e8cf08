"""What makes a server forget its tenants, found in the source: text in, findings out.

Only *scoped* modules are looked at: those that import hivetenancy, and those that say so with a line
``# hivetenancy: scoped``. What a rule finds and is right all the same is allowed by a comment with its reason, on the
line or the line above, ``# hivetenancy: allow RULE reason``, or for a whole file, ``# hivetenancy: allow-file RULE
reason``: a façade is the one place where the raw driver belongs.

The rules prefer silence to a false alarm: they follow no value through calls. Linters that are there (ruff, flake8)
know nothing of tenants, and of their plug-in interfaces none serves both.
"""

from __future__ import annotations

import ast
import re
import tokenize
import warnings
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass
from types import MappingProxyType
from typing import Any, Final, TypeAlias

RULES: Final[Mapping[str, str]] = MappingProxyType(
    {
        "raw-driver": "A database driver is imported: wrap it in a façade, and let the façade alone import it.",
        "shared-cache": "A cache is keyed without the tenant: use TenantCache, or pass the tenant as an argument.",
        "thread-local": "Thread-locals mix tenants under asyncio: use current_tenant(), or a ContextVar.",
        "hand-made-name": "A physical name is made by hand: ask the tenant's scope, tenant.kv.key(name).",
        "name-concat": "A scoped name is built upon: put what is added inside, tenant.kv.key(f'{name}:more').",
        "unbound-work": "Work in another thread has no tenant: hand over tenant.bind(fn), or without_tenant(fn).",
        "bad-allow": "An allow comment names no rule, gives no reason, or allows nothing.",
        "unreadable": "The file is no Python that this version reads, so nothing in it was looked at.",
    }
)
"""Every rule, with what is wrong and the fix."""

_DRIVERS: Final = """
aiokafka aiomcache aiomysql aioredis aiosqlite arangodb asyncpg boto3 botocore cassandra chromadb duckdb elasticsearch
faiss lmdb memcache motor mysql nats neo4j opensearchpy pika pinecone plyvel psycopg psycopg2 pymemcache
pymilvus pymongo pymysql qdrant_client redis rediscluster rocksdict sqlalchemy sqlite3 valkey weaviate
"""
DRIVERS: Final = frozenset(_DRIVERS.split())
"""Packages whose import is a ``raw-driver``."""

_CACHES: Final = frozenset(
    {"functools.lru_cache", "functools.cache", "cachetools.cached", "cachetools.func.lru_cache", "async_lru.alru_cache"}
    | {f"cachetools.func.{name}_cache" for name in ("ttl", "lfu", "rr", "fifo")}
)
_LOCALS: Final = frozenset({"threading.local", "_thread._local", "werkzeug.local.Local"})
_EXECUTORS: Final = frozenset(
    {f"concurrent.futures.{kind}PoolExecutor" for kind in ("Thread", "Process")} | {"multiprocessing.pool.ThreadPool"}
)
_DICTS: Final = frozenset({"dict", "collections.OrderedDict", "collections.defaultdict", "weakref.WeakValueDictionary"})
_KINDS: Final = """
kv hashes lists sets sorted_sets bitmaps hyperloglogs geo streams locks collections queues topics channels blobs labels
relationship_types property_keys indexes constraints
"""
_WHOSE: Final = re.compile(r"tenant|scope|context|owner", re.IGNORECASE)
_CACHE_NAME: Final = re.compile(r"(?:^|_)(?:cache|memo)", re.IGNORECASE)
_POOL_NAME: Final = re.compile(r"(?:^|_)(?:executor|pool)$", re.IGNORECASE)
_OWNED: Final = re.compile(r"(?:user:|ns:|tenants/|hvt:|user_(?=$|%|\{))")
"""How physical names begin that somebody has made by hand. ``user_id`` is a field; ``user_`` with a value is a name."""

_COMMENT: Final = re.compile(r"#\s*hivetenancy:\s*(scoped|allow-file|allow)\b[ \t]*([\w-]*)[ \t]*(.*)")


@dataclass(frozen=True, slots=True, kw_only=True, order=True)
class Finding:
    """One place that a rule found.

    Attributes:
        path: The file, as it was given.
        line: From 1.
        column: From 1.
        rule: One of `RULES`.
        message: What is wrong there, and the fix.
    """

    path: str
    line: int
    column: int
    rule: str
    message: str

    def __str__(self) -> str:
        return f"{self.path}:{self.line}:{self.column}: {self.rule}: {self.message}"


def check(source: str, path: str, *, scoped: bool = False, drivers: Iterable[str] = DRIVERS) -> list[Finding]:
    """Return what the rules find in *source*, in order of lines.

    Args:
        source: The text of a module.
        path: What findings call it.
        scoped: Look at it even if it neither imports hivetenancy nor says that it is scoped.
        drivers: Packages whose import is a ``raw-driver``.
    """
    try:
        with warnings.catch_warnings(action="ignore"):  # of the code that is read, such as a stray backslash
            tree = ast.parse(source)
        comments = list(_comments(source)) if "hivetenancy:" in source else []
    except (SyntaxError, ValueError, RecursionError, tokenize.TokenError) as error:
        line = getattr(error, "lineno", None) or 1
        return [Finding(path=path, line=line, column=1, rule="unreadable", message=RULES["unreadable"])]
    names = _names(tree)
    imports = any(name.split(".")[0] == "hivetenancy" for name in names.values())
    if not (scoped or imports or any(match[1] == "scoped" for _, match in comments)):
        return []
    try:
        looked = list(_Looks(tree, names, frozenset(drivers)))
    except RecursionError:  # nested deeper than `ast.unparse` goes, though Python reads it
        return [Finding(path=path, line=1, column=1, rule="unreadable", message=RULES["unreadable"])]
    found = [
        Finding(path=path, line=node.lineno, column=node.col_offset + 1, rule=rule, message=f"{what}. {RULES[rule]}")
        for node, rule, what in looked
    ]
    return sorted({*_allowed(found, comments, path)})


def _comments(source: str) -> Iterator[tuple[int, re.Match[str]]]:
    lines = iter(re.findall(r"[^\n]*\n|[^\n]+", source))  # `splitlines` ends a line at characters that Python does not
    for token in tokenize.generate_tokens(lambda: next(lines, "")):
        if token.type == tokenize.COMMENT and (match := _COMMENT.match(token.string)):
            yield token.start[0], match


def _allowed(found: list[Finding], comments: list[tuple[int, re.Match[str]]], path: str) -> Iterator[Finding]:
    """Yield what is not allowed, and the allowances that are wrong or allow nothing."""
    used: set[int] = set()
    for finding in found:
        fits = {
            line
            for line, match in comments
            if match[2] == finding.rule
            and match[3].strip()
            and (match[1] == "allow-file" or line in (finding.line, finding.line - 1))
        }
        used |= fits
        if not fits:
            yield finding
    for line, match in comments:
        if match[1] != "scoped" and line not in used:
            yield Finding(path=path, line=line, column=1, rule="bad-allow", message=RULES["bad-allow"])


def _names(tree: ast.Module) -> dict[str, str]:
    """Return what each imported name stands for: ``{"memo": "functools.lru_cache"}``."""
    names: dict[str, str] = {}
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            tops = {alias.name.split(".")[0] for alias in node.names if not alias.asname}
            names.update(
                {alias.asname: alias.name for alias in node.names if alias.asname}, **{top: top for top in tops}
            )
        elif isinstance(node, ast.ImportFrom) and node.module and not node.level:
            names.update({alias.asname or alias.name: f"{node.module}.{alias.name}" for alias in node.names})
    return names


def _told(node: ast.AST) -> bool:
    """Whether an identifier in *node* tells whose it is."""
    return any(_WHOSE.search(f"{getattr(each, 'id', '')} {getattr(each, 'attr', '')}") for each in ast.walk(node))


_Found: TypeAlias = tuple[ast.expr | ast.stmt, str, str]


class _Looks:
    """Goes through one module; iterating gives place, rule and what was found."""

    def __init__(self, tree: ast.Module, names: Mapping[str, str], drivers: frozenset[str]) -> None:
        self._names, self._drivers = names, drivers
        self._nodes = nodes = list(ast.walk(tree))
        self._texts = {id(node.value) for node in nodes if isinstance(node, ast.Expr)}  # docstrings and such
        self._texts |= {id(part) for node in nodes if isinstance(node, ast.JoinedStr) for part in node.values}
        self._decorators = {id(each) for node in nodes for each in getattr(node, "decorator_list", ())}
        self._bound, self._pools = self._assigned(self._binds), self._assigned(self._makes_pool)
        self._dicts = {
            target.id
            for node in tree.body
            if isinstance(node, ast.Assign | ast.AnnAssign) and self._makes_dict(node.value)
            for target in (node.targets if isinstance(node, ast.Assign) else [node.target])
            if isinstance(target, ast.Name) and _CACHE_NAME.search(target.id)
        }

    def __iter__(self) -> Iterator[_Found]:
        text, functions = (ast.JoinedStr, ast.Constant, ast.BinOp), (ast.FunctionDef, ast.AsyncFunctionDef)
        looks: dict[type[ast.AST], Callable[[Any], Iterator[_Found]]] = {
            **dict.fromkeys((ast.Import, ast.ImportFrom), self._imports),
            **dict.fromkeys(functions, self._function),
            **dict.fromkeys(text, self._text),
            **dict.fromkeys((ast.Assign, ast.AugAssign), self._store),
            ast.ClassDef: self._class,
            ast.Call: self._call,
        }
        for node in self._nodes:
            if look := looks.get(type(node)):
                yield from look(node)

    def _of(self, node: ast.AST) -> str:
        """Return the full name of what *node* names, as far as imports tell; empty: nothing that is known."""
        if isinstance(node, ast.Name):
            return self._names.get(node.id, node.id)
        if isinstance(node, ast.Attribute) and (origin := self._of(node.value)):
            return f"{origin}.{node.attr}"
        return ""

    def _imports(self, node: ast.Import | ast.ImportFrom) -> Iterator[_Found]:
        modules = [alias.name for alias in node.names] if isinstance(node, ast.Import) else [node.module or ""]
        if isinstance(node, ast.ImportFrom) and node.level:
            return
        for module in modules:
            if module.split(".")[0] in self._drivers:
                yield node, "raw-driver", f"imports {module}"

    def _function(self, node: ast.FunctionDef | ast.AsyncFunctionDef) -> Iterator[_Found]:
        arguments = [*node.args.posonlyargs, *node.args.args, *node.args.kwonlyargs]
        told = any(_WHOSE.search(each.arg) for each in arguments)
        for decorator in node.decorator_list:
            made = decorator.func if isinstance(decorator, ast.Call) else decorator
            if self._of(made) in _CACHES and not told:
                yield decorator, "shared-cache", f"{node.name}() is cached for everybody"

    def _class(self, node: ast.ClassDef) -> Iterator[_Found]:
        yield from ((base, "thread-local", "threading.local") for base in node.bases if self._of(base) in _LOCALS)

    def _makes_dict(self, node: ast.expr | None) -> bool:
        return isinstance(node, ast.Dict) or (isinstance(node, ast.Call) and self._of(node.func) in _DICTS)

    def _store(self, node: ast.Assign | ast.AugAssign) -> Iterator[_Found]:
        for target in node.targets if isinstance(node, ast.Assign) else [node.target]:
            into = getattr(target.value, "id", "") if isinstance(target, ast.Subscript) else ""
            if isinstance(target, ast.Subscript) and into in self._dicts and not _told(target.slice):
                yield target, "shared-cache", f"{into} is filled for everybody"

    def _assigned(self, wanted: Callable[[ast.AST], bool]) -> set[str]:
        """Return the names that are given a value of which *wanted* holds, anywhere in the module."""
        found: set[str] = set()
        for node in self._nodes:
            if isinstance(node, ast.Assign) and wanted(node.value):
                found.update(ast.unparse(target) for target in node.targets)
            elif isinstance(node, ast.withitem) and node.optional_vars is not None and wanted(node.context_expr):
                found.add(ast.unparse(node.optional_vars))
        return found

    def _makes_pool(self, node: ast.AST) -> bool:
        return isinstance(node, ast.Call) and self._of(node.func) in _EXECUTORS

    def _binds(self, node: ast.AST) -> bool:
        called = node.func if isinstance(node, ast.Call) else node
        return called is not node and (getattr(called, "attr", "") == "bind" or "without_tenant" in self._of(called))

    def _call(self, node: ast.Call) -> Iterator[_Found]:
        name = self._of(node.func)
        if name in _LOCALS:
            yield node, "thread-local", "threading.local"
        made = node.func.func if isinstance(node.func, ast.Call) else node.func  # lru_cache(9)(fn), lru_cache(fn)
        around = node.args and (made is not node.func or not isinstance(node.args[0], ast.Constant))
        if around and self._of(made) in _CACHES and id(node) not in self._decorators:
            yield node, "shared-cache", f"{self._of(made)} is put around something for everybody"
        work = self._work(node, name)
        if work is not None and not self._binds(work) and ast.unparse(work) not in self._bound:
            yield node, "unbound-work", f"{ast.unparse(work)} runs in another thread"

    def _work(self, node: ast.Call, name: str) -> ast.expr | None:
        """Return what a call runs in another thread; ``None``: it runs nothing there, as far as can be seen."""
        position = 0
        if name in ("threading.Thread", "threading.Timer"):
            position = 1
            for each in node.keywords:
                if each.arg in ("target", "function"):
                    return each.value
        elif isinstance(node.func, ast.Attribute) and node.func.attr == "run_in_executor":
            position = 1
        elif isinstance(node.func, ast.Attribute) and node.func.attr in ("submit", "map", "apply_async"):
            if (pool := ast.unparse(node.func.value)) not in self._pools and not _POOL_NAME.search(pool):
                return None
        else:
            return None
        return node.args[position] if len(node.args) > position else None

    def _text(self, node: ast.JoinedStr | ast.Constant | ast.BinOp) -> Iterator[_Found]:
        if isinstance(node, ast.JoinedStr):
            first = node.values[0] if node.values else None
            if isinstance(first, ast.Constant) and _OWNED.match(str(first.value)):
                yield node, "hand-made-name", f"a text begins with {str(first.value)!r}"
            parts = [part.value for part in node.values if isinstance(part, ast.FormattedValue)]
            if len(node.values) > 1 and any(self._scopes(part) for part in parts):
                yield node, "name-concat", "a scoped name is a part of a longer text"
        elif isinstance(node, ast.BinOp):
            if isinstance(node.op, ast.Add | ast.Mod) and (self._scopes(node.left) or self._scopes(node.right)):
                yield node, "name-concat", "something is added to a scoped name"
        elif isinstance(node.value, str | bytes) and id(node) not in self._texts:
            text = node.value if isinstance(node.value, str) else node.value.decode("latin-1")
            if _OWNED.match(text):
                yield node, "hand-made-name", f"a text begins with {text[:12]!r}"

    def _scopes(self, node: ast.AST) -> bool:
        """Whether *node* is ``tenant.kv.key(...)``, or that of another kind."""
        if not (isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute) and node.func.attr == "key"):
            return False
        scope = node.func.value
        return isinstance(scope, ast.Attribute) and scope.attr in _KINDS.split()
