"""How many nodes at the same time: from files as the kernel writes them."""

import os

import pytest

from mlplatform.orchestration.local.capacity import NODE_MEMORY_BYTES, default_parallelism

GIB = 1 << 30


@pytest.fixture
def machine(tmp_path, monkeypatch):
    """Return a function that writes a machine's files and asks."""
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))

    def ask(available_gib, **group):
        proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
        (proc / "self").mkdir(parents=True)
        (proc / "meminfo").write_text(
            f"MemTotal: {64 << 20} kB\nMemFree: 1000 kB\nMemAvailable: {int(available_gib * (1 << 20))} kB\n"
        )
        (proc / "self/cgroup").write_text("0::/pod/container\n")
        (cgroups / "pod/container").mkdir(parents=True)
        for name, text in group.items():
            (cgroups / "pod" / name.replace("_", ".")).write_text(f"{text}\n")
        return default_parallelism(proc, cgroups)

    return ask


def test_memory_that_the_page_cache_would_give_up_counts_as_free(machine):
    assert machine(6) == 6 * GIB // NODE_MEMORY_BYTES == 4


def test_no_more_than_cores(machine):
    assert machine(60) == 8


def test_never_less_than_one(machine):
    assert machine(0.1) == 1


def test_the_limits_of_a_group_around_this_one_count(machine):
    limits = {"memory_max": 4 * GIB, "memory_current": 2 * GIB, "memory_stat": f"anon 5\ninactive_file {GIB}"}
    assert machine(60, **limits) == 3 * GIB // NODE_MEMORY_BYTES == 2


def test_a_quota_of_processors_counts(machine):
    assert machine(60, cpu_max="250000 100000") == 3


def test_no_limit_is_none(machine):
    assert machine(60, cpu_max="max 100000", memory_max="max", memory_current=GIB) == 8


def test_this_machine_has_room():
    assert default_parallelism() >= 1
