"""Clusters for the scenarios, and their end."""

from __future__ import annotations

import shutil
from collections.abc import Callable, Iterator, Sequence
from typing import Any

import pytest
from scenario import Cluster

from crane.chaos.cluster import free_port
from crane.chaos.failover import redis_command


@pytest.fixture
def clusters() -> Iterator[Callable[..., Cluster]]:
    """Makes clusters that are not started yet and end with the test."""
    made: list[Cluster] = []

    def make(command: Sequence[str], port: int = 0, **options: Any) -> Cluster:
        made.append(Cluster(command, port, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


@pytest.fixture
def redis(clusters: Callable[..., Cluster]) -> Cluster:
    """Three replicas of Redis for one test alone."""
    port = free_port()
    cluster = clusters(redis_command(port), port)
    cluster.start()
    return cluster


@pytest.fixture(scope="module")
def shared_redis() -> Iterator[Cluster]:
    """Three replicas of Redis for the tests of a module that do them no harm."""
    port = free_port()
    cluster = Cluster(redis_command(port), port)
    try:
        cluster.start()
        yield cluster
        cluster.must_settle()
    finally:
        cluster.close()


@pytest.fixture(autouse=True, scope="session")
def _programs_are_there() -> None:
    for program in ("redis-server", "redis-cli", "redis-benchmark", "curl"):
        assert shutil.which(program), f"{program} is missing; `make test` installs it"
