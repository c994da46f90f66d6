"""The same runs with ML Metadata on real servers: MariaDB and PostgreSQL, from Debian's packages."""

import os
import pwd
import shutil
import socket
import subprocess
import time
from pathlib import Path

import pytest

pytestmark = pytest.mark.e2e

# The server and its libraries; libaio1 has its second name from Debian 13 on.
MARIADB_PACKAGES = ("mariadb-server-core", "liburing2", "libnuma1", "libaio1", "libaio1t64")


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return int(probe.getsockname()[1])


def wait_for(port: int, server: "subprocess.Popen[bytes]", log: Path) -> None:
    deadline = time.monotonic() + 60
    while time.monotonic() < deadline and server.poll() is None:
        with socket.socket() as probe:
            if probe.connect_ex(("127.0.0.1", port)) == 0:
                return
        time.sleep(0.1)
    pytest.fail(f"the server did not start:\n{log.read_text(errors='replace')[-2000:]}")


def unpacked(packages: tuple[str, ...], folder: Path) -> Path:
    """Download Debian packages and unpack them, which needs no root; skips where they cannot be had."""
    if shutil.which("apt-get") is None:
        pytest.skip("MariaDB is not installed, and this is no Debian to download it from")
    folder.mkdir()
    for package in packages:
        done = subprocess.run(["apt-get", "download", package], cwd=folder, capture_output=True, text=True)
        if done.returncode != 0 and package == packages[0]:
            pytest.skip(f"MariaDB is not installed and cannot be downloaded: {done.stderr.strip()[-200:]}")
    for archive in folder.glob("*.deb"):
        subprocess.run(["dpkg", "-x", archive, folder / "root"], check=True)
    return folder / "root"


@pytest.fixture(scope="module")
def mariadb(tmp_path_factory):
    """A MariaDB with an empty database `mlmd`; gives its connection."""
    folder = tmp_path_factory.mktemp("mariadb")
    installed = shutil.which("mariadbd", path=f"{os.environ['PATH']}:/usr/sbin")
    base = Path("/usr") if installed else unpacked(MARIADB_PACKAGES, folder / "packages") / "usr"
    environment = {**os.environ, "LD_LIBRARY_PATH": str(base / "lib/x86_64-linux-gnu")}
    log, port, data = folder / "log", free_port(), folder / "data"
    user = ["--user=root"] if os.getuid() == 0 else []
    data.mkdir()
    (folder / "start.sql").write_text("CREATE DATABASE mlmd;")
    with log.open("wb") as output:
        server = subprocess.Popen(
            [base / "sbin/mariadbd", "--no-defaults", f"--basedir={base}", f"--datadir={data}", *user,
             f"--port={port}", "--bind-address=127.0.0.1", f"--socket={folder}/socket", "--skip-grant-tables",
             "--skip-networking=0", f"--init-file={folder}/start.sql", f"--pid-file={folder}/pid"],
            env=environment, stdout=output, stderr=output,
        )  # fmt: skip
    wait_for(port, server, log)
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.mysql.host, config.mysql.port, config.mysql.database = "127.0.0.1", port, "mlmd"
    config.mysql.user = "root"
    yield config
    server.terminate()
    server.wait(timeout=60)


@pytest.fixture(scope="module")
def postgresql(tmp_path_factory):
    """A PostgreSQL with an empty database `mlmd`; gives its connection."""
    found = sorted(Path("/usr/lib/postgresql").glob("*/bin/initdb"))
    if not found:
        pytest.skip("PostgreSQL is not installed (Debian package: postgresql)")
    folder = tmp_path_factory.mktemp("postgresql")
    programs, data, port, log = found[-1].parent, folder / "data", free_port(), folder / "log"
    options = {}
    data.mkdir(mode=0o700)
    if os.getuid() == 0:  # the server refuses to run as root
        owner = pwd.getpwnam("postgres" if any(u.pw_name == "postgres" for u in pwd.getpwall()) else "nobody")
        os.chown(data, owner.pw_uid, owner.pw_gid)
        for parent in data.parents:
            if str(parent).startswith("/tmp/"):
                parent.chmod(parent.stat().st_mode | 0o011)
        options = {"user": owner.pw_uid, "group": owner.pw_gid, "cwd": "/"}
    with log.open("wb") as output:
        subprocess.run(
            [programs / "initdb", "-D", data, "-U", "ml", "--auth=trust", "--no-sync"],
            stdout=output, stderr=output, check=True, **options,
        )  # fmt: skip
        server = subprocess.Popen(
            [programs / "postgres", "-D", data, "-p", str(port), "-k", data, "-h", "127.0.0.1"],
            stdout=output, stderr=output, **options,
        )  # fmt: skip
    wait_for(port, server, log)
    create = [
        "psql",
        "-h",
        "127.0.0.1",
        "-p",
        str(port),
        "-U",
        "ml",
        "-d",
        "postgres",
        "-c",
        "CREATE DATABASE mlmd",
    ]
    deadline = time.monotonic() + 30
    while subprocess.run(create, capture_output=True).returncode != 0:
        assert time.monotonic() < deadline, log.read_text()
        time.sleep(0.2)
    from ml_metadata.proto import metadata_store_pb2

    config = metadata_store_pb2.ConnectionConfig()
    config.postgresql.host, config.postgresql.port, config.postgresql.dbname = "127.0.0.1", str(port), "mlmd"
    config.postgresql.user = "ml"
    yield config
    server.terminate()
    server.wait(timeout=60)


@pytest.mark.parametrize("server", ["mariadb", "postgresql"])
@pytest.mark.slow
def test_a_pipeline_runs_and_is_cached(request, runner, pipeline, trace, calls, server):
    import ml_metadata
    import steps

    config = request.getfixturevalue(server)

    def fan():
        make = steps.Make(trace=str(trace), text="hi")
        uppers = [
            steps.Upper(trace=str(trace), source=make.outputs["out"]).with_id(f"u{i}") for i in range(4)
        ]
        return pipeline(make, *uppers, name=f"on_{server}", database=config)

    first = runner.run(fan())
    assert len(calls()) == 5
    second = runner.run(fan())
    assert calls() == []
    assert {node.state for node in second.nodes} == {"cached"}
    assert first.metadata.startswith("mysql://" if server == "mariadb" else "postgresql://")
    store = ml_metadata.MetadataStore(config)
    context = store.get_context_by_type_and_name("pipeline_run", second.run_id)
    states = [execution.last_known_state for execution in store.get_executions_by_context(context.id)]
    assert states == [5] * 5  # CACHED
