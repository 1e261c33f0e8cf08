"""What pytest loads at its start (entry point ``pytest11``): the option, and nothing imported.

pytest loads entry points before anything is measured, and in the test runs of people who use this library for
something else. So this file imports nothing; `hivetenancy.testing.plugin` is loaded when pytest is configured, and the
fake itself when a test asks for it.
"""


def pytest_addoption(parser):  # type: ignore[no-untyped-def]  # noqa: D103 - an annotation would be an import
    group = parser.getgroup("hivetenancy")
    text = "fail a test that causes a call of the fake hub which it did not expect"
    group.addoption("--hive-strict", action="store_true", default=None, help=text)
    parser.addini("hive_strict", text, type="bool", default=False)


def pytest_configure(config):  # type: ignore[no-untyped-def]  # noqa: D103
    from . import plugin
    from .conformance import plugin as conformance

    config.pluginmanager.register(plugin, "hivetenancy-fixtures")
    config.pluginmanager.register(conformance, "hivetenancy-isolation")
    config.addinivalue_line(
        "markers",
        "hive(plan=, faults=, calls=, extensions=): the plan of tenants, what goes wrong, which calls are expected",
    )
