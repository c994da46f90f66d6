"""What `mlplatform doctor` finds, on machines that have it and on machines that do not."""

import importlib.metadata
import json
import os
import platform
import re
import sys
from pathlib import Path

import pytest
from click.testing import CliRunner

from mlplatform import machine
from mlplatform.cli.main import cli


def found(root: Path) -> dict[str, machine.Check]:
    return {check.name: check for check in machine.look(root)}


def test_the_machine_that_runs_these_tests_is_fit(tmp_path: Path) -> None:
    checks = found(tmp_path / "not" / "there" / "yet")
    assert {name for name, check in checks.items() if check.status == "missing"} == set()
    assert checks["dataset store in C"].found == "built"
    assert checks["tfx"].found == importlib.metadata.version("tfx")
    stack = "tfx116" if sys.version_info < (3, 11) else "tfx121"
    assert stack in checks["stack"].found


@pytest.mark.parametrize(
    ("glibc", "stacks"),
    [
        ((2, 17), ["tfx116"]),
        ((2, 38), ["tfx116"]),
        ((2, 39), ["tfx121", "tfx116"]),
        ((2, 41), ["tfx121", "tfx116"]),
    ],
)
def test_the_c_library_decides_the_stacks(
    glibc: tuple[int, int], stacks: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", ".".join(map(str, glibc))))
    assert machine.possible_stacks() == stacks


@pytest.mark.parametrize(
    ("libc", "machine_name", "todo"),
    [(("glibc", "2.36"), "aarch64", "x86-64 only"), (("", ""), "x86_64", "without glibc")],
)
def test_a_system_without_wheels_is_named(
    libc: tuple[str, str], machine_name: str, todo: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: libc)
    monkeypatch.setattr(platform, "machine", lambda: machine_name)
    checks = found(tmp_path)
    assert checks["system"].status == "missing"
    assert todo in checks["system"].todo
    assert (checks["stack"].status, checks["stack"].todo) == ("missing", "no stack fits this system")
    told = CliRunner().invoke(cli, ["doctor", "--root", str(tmp_path)])
    assert told.exit_code == 1
    assert "This machine can have no stack. Not all is there." in told.stdout
    assert "tfx1" not in told.stdout
    document = json.loads(CliRunner().invoke(cli, ["doctor", "--root", str(tmp_path), "--json"]).stdout)
    assert document["possible_stacks"] == []


@pytest.mark.parametrize(
    ("limits", "resources", "status"),
    [
        ({"memory.max": 2 << 30, "cpu.max": "150000 100000"}, "1.5 cores, 2 GB memory", "warning"),
        ({"memory.max": "max", "cpu.max": "max 100000"}, "8 cores, 64 GB memory", "ok"),
    ],
)
def test_the_limits_of_the_container_count(
    limits: dict[str, object], resources: str, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    proc, cgroups = tmp_path / "proc", tmp_path / "cgroup"
    (proc / "self").mkdir(parents=True)
    (proc / "meminfo").write_text(f"MemTotal: {64 << 20} kB\nMemAvailable: {60 << 20} kB\n")
    (proc / "self" / "cgroup").write_text("0::/pod/container\n")
    (cgroups / "pod" / "container").mkdir(parents=True)
    for name, limit in limits.items():
        (cgroups / "pod" / name).write_text(f"{limit}\n")
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(8)))
    checks = {check.name: check for check in machine.look(tmp_path, proc=proc, cgroups=cgroups)}
    assert (checks["resources"].found, checks["resources"].status) == (resources, status)


def test_a_python_that_no_stack_has_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(platform, "libc_ver", lambda: ("glibc", "2.36"))
    monkeypatch.setattr(sys, "version_info", type("V", (tuple,), {"major": 3, "minor": 12})((3, 12)))
    check = found(tmp_path)["stack"]
    assert check.status == "missing"
    assert "tfx116" in check.todo


@pytest.mark.parametrize(("version", "status"), [("1.16.0", "ok"), ("1.15.1", "warning"), (None, "missing")])
def test_packages_are_held_against_what_is_supported(
    version: str | None, status: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real = importlib.metadata.version

    def installed(name: str) -> str:
        if name != "tfx":
            return real(name)
        if version is None:
            raise importlib.metadata.PackageNotFoundError(name)
        return version

    monkeypatch.setattr(importlib.metadata, "version", installed)
    check = found(tmp_path)["tfx"]
    assert check.status == status
    assert ("constraints/tfx1" in check.todo) == (status != "ok")


def test_a_root_that_is_a_file_is_named_and_the_command_says_so(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.touch()
    assert "is a file" in found(file / "home")["root"].found
    done = CliRunner().invoke(cli, ["doctor", "--root", str(file), "--json"])
    document = json.loads(done.stdout)
    assert done.exit_code == 1
    assert document["is_fit"] is False
    assert {"name", "status", "found", "todo"} == set(document["checks"][0])


@pytest.mark.parametrize(("content", "says"), [(None, "not built"), (b"", "cannot be loaded")])
def test_a_missing_or_broken_c_library_is_named(
    content: bytes | None, says: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(machine, "__file__", str(tmp_path / "machine.py"))
    if content is not None:
        library = tmp_path / "datasets" / "format" / "native" / "library.abi3.so"
        library.parent.mkdir(parents=True)
        library.write_bytes(content)
    check = found(tmp_path)["dataset store in C"]
    assert (check.status, says in check.found) == ("warning", True)


@pytest.mark.parametrize(("quota", "threads"), [("max", 64), ("150000", 2), ("400000", 4), ("10000", 1)])
def test_a_containers_quota_bounds_threads(
    quota: str, threads: int, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    from mlplatform.serving.server import batching_parameters
    from mlplatform.serving.settings import ServerSettings

    (tmp_path / "cpu.max").write_text(f"{quota} 100000\n")
    monkeypatch.setattr(machine, "control_groups", lambda *_: [tmp_path])
    monkeypatch.setattr(os, "sched_getaffinity", lambda _: set(range(64)))
    assert machine.usable_threads() == threads
    settings = ServerSettings()
    assert settings.inter_op_threads == threads
    assert settings.intra_op_threads == (1 if threads <= 4 else 0)  # 0: TensorFlow's own choice
    assert batching_parameters(settings).num_batch_threads == threads


def test_only_the_machine_module_counts_cores() -> None:
    """Elsewhere the count of the hardware would miss a container's quota."""
    root = Path(machine.__file__).parents[1]
    counting = re.compile(r"\b(sched_getaffinity|cpu_count|process_cpu_count)\b")
    files = [
        file for name in ("mlplatform", "components", "pipelines") for file in (root / name).rglob("*.py")
    ]
    found = {str(file.relative_to(root)) for file in files if counting.search(file.read_text("utf-8"))}
    assert found == {"mlplatform/machine.py"}
