"""Benchmarks: our rows of `hivetenancy.cli.bench` with peers beside them. They print; nothing passes or fails."""
