"""What holds for every test."""

import gc
import importlib.util
import os
import random
import shutil
import socket
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import hypothesis
import numpy as np
import pytest

from mlplatform.orchestration.local.processes.deferred import defer_imports
from mlplatform.orchestration.local.processes.fork_server import CHILD_GC_THRESHOLDS

if TYPE_CHECKING:
    from mlplatform.orchestration.local import LocalRunner

# What the studies marked `soak` draw from: the same text gives the same kills, inputs and moments.
SOAK_SEED = os.environ.get("SOAK_SEED", "0")


def pytest_configure(config: pytest.Config) -> None:
    """Let Hypothesis draw the same examples in every run but the long studies, on a busy machine as well."""
    hypothesis.settings.register_profile(
        "of these tests",
        deadline=None,
        derandomize="soak" not in config.option.markexpr,
        suppress_health_check=[hypothesis.HealthCheck.too_slow],
    )
    hypothesis.settings.load_profile("of these tests")
    defer_imports()  # as nodes do, which spares a third of importing TFX
    gc.set_threshold(*CHILD_GC_THRESHOLDS)  # as nodes do, too


def pytest_make_parametrize_id(val: object) -> str | None:
    """Number cases of bytes: their text may hold a time, and differ between the tests' processes."""
    return "bytes" if isinstance(val, bytes) else None


def pytest_report_header() -> str:
    """Print what repeats a study that failed."""
    return f"soak studies: SOAK_SEED={SOAK_SEED}"


@pytest.fixture(scope="session")
def soak_seed() -> int:
    """The seed of the long studies, a whole number from the environment's SOAK_SEED (any text; default 0)."""
    return random.Random(SOAK_SEED).randrange(1 << 30)


@pytest.fixture(scope="session")
def _warm_start(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Any]:
    spec = importlib.util.spec_from_file_location("warm_start", Path(__file__).with_name("warm_start.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    warm = module.WarmStart(str(tmp_path_factory.mktemp("warm-start")))
    yield warm
    warm.stop()


@pytest.fixture(scope="session")
def warm_processes(_warm_start: Any) -> Any:
    """Takes the place of the module `subprocess`: its `Popen` starts Python in a moment (`warm_start.py`)."""
    return _warm_start.subprocess


@pytest.fixture(scope="session")
def warmly(warm_processes: Any) -> Callable[[], AbstractContextManager[None]]:
    """Let runs, and the demo's servers, that this process starts within a `with` block begin in a moment."""

    @contextmanager
    def warmly() -> Iterator[None]:
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("mlplatform.orchestration.local.processes.node_process.subprocess", warm_processes)
            patch.setattr("mlplatform.demo.trip.subprocess", warm_processes)
            yield

    return warmly


@pytest.fixture
def warm_start(warmly: Callable[[], AbstractContextManager[None]]) -> Iterator[None]:
    """Let runs that a test starts in this process begin in a moment."""
    with warmly():
        yield


@pytest.fixture(scope="session")
def runner(
    tmp_path_factory: pytest.TempPathFactory, warmly: Callable[[], AbstractContextManager[None]]
) -> Iterator["LocalRunner"]:
    """A runner whose processes stay warm, and begin in a moment."""
    from mlplatform.orchestration.local import LocalRunner

    class Runner(LocalRunner):
        def _warm(self, plan: Any) -> Any:
            with warmly():
                return super()._warm(plan)

    runner = Runner(tmp_path_factory.mktemp("home"), parallelism=2)
    yield runner
    runner.close()


@dataclass(frozen=True)
class Finished:
    """A command that ended."""

    code: int
    out: str
    err: str


@pytest.fixture(scope="session")
def warm_python(warm_processes: Any) -> Callable[..., Finished]:
    """Run Python, `warm_python("script.py", ...)`, in a process that starts in a moment (`warm_start.py`)."""

    def run(*words: object, timeout_s: float = 300) -> Finished:
        with tempfile.TemporaryFile("w+") as out, tempfile.TemporaryFile("w+") as err:
            process = warm_processes.Popen([sys.executable, *map(str, words)], stdout=out, stderr=err)
            code = process.wait(timeout_s)
            for file in (out, err):
                file.seek(0)
            return Finished(code, out.read(), err.read())

    return run


@pytest.fixture(scope="session")
def mlplatform(tmp_path_factory: pytest.TempPathFactory) -> Callable[..., Finished]:
    """Run the command line in a process of its own, and not in the checkout."""
    elsewhere = tmp_path_factory.mktemp("elsewhere")

    def run(*words: object, timeout_s: float = 420, cwd: Path = elsewhere) -> Finished:
        command = [sys.executable, "-m", "mlplatform.cli.main", *map(str, words)]
        done = subprocess.run(
            command, capture_output=True, text=True, timeout=timeout_s, check=False, cwd=cwd
        )
        return Finished(done.returncode, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def command(warmly: Callable[[], AbstractContextManager[None]]) -> Callable[..., Finished]:
    """Run the command line in this process; runs begin in a moment."""

    def run(*words: object, cwd: Path | None = None) -> Finished:
        from click.testing import CliRunner

        from mlplatform.cli.main import cli

        before = Path.cwd()
        os.chdir(cwd or before)
        try:
            with warmly():
                done = CliRunner().invoke(cli, [*map(str, words)], prog_name="mlplatform")
        finally:
            os.chdir(before)
        if done.exception is not None and not isinstance(done.exception, SystemExit):
            raise done.exception
        return Finished(done.exit_code, done.stdout, done.stderr)

    return run


@pytest.fixture(scope="session")
def beam_of_nodes() -> None:
    """Let Beam run in this process as it does in the local runner's nodes: in a third of the time.

    Beam as it is runs under the stock runner, in processes of its own.
    """
    from mlplatform.orchestration.local.patches import beam_in_process

    beam_in_process.prepare()


@pytest.hookimpl(tryfirst=True)
def pytest_runtest_setup() -> None:
    """Start each test, and the fixtures made for it, from the same random numbers.

    Keras 3 seeds the weights of new layers from `random`: a network that a test makes is the same every time.
    """
    random.seed(0)
    np.random.seed(0)


def pytest_collection_finish() -> None:
    """Spare the garbage collector what the test modules imported, millions of objects that stay."""
    gc.collect()
    gc.freeze()


def pytest_collection_modifyitems(config: pytest.Config, items: list[pytest.Item]) -> None:
    """Order the files; leave out what is asked for by name (`-m soak`, `-m engines`) and is not.

    Parallel workers take whole files in this order: those that take long come first, so that no worker is
    left with one of them at the end. Of those that share the finished run `home`, one makes it at the very
    beginning and the others come when it is made, so that no worker waits for it.
    """
    slow = {item.path for item in items if item.get_closest_marker("slow")}
    e2e = {item.path for item in items if item.get_closest_marker("e2e")}
    using = {item.path for item in items if "home" in getattr(item, "fixturenames", ())} & slow
    of_home = sorted(using)

    def place(item: pytest.Item) -> tuple[bool, ...]:
        return item.path not in of_home[:1], item.path not in slow, item.path in using, item.path not in e2e

    items.sort(key=place)
    left_out = [mark for mark in ("soak", "engines", "kubernetes") if mark not in config.option.markexpr]
    long = [item for item in items if any(item.get_closest_marker(mark) for mark in left_out)]
    config.hook.pytest_deselected(items=long)
    items[:] = [item for item in items if item not in long]


@pytest.fixture(scope="session")
def unknown_fields() -> Callable[[Any, str, str], list[str]]:
    """Takes an object, the name of its kind in the client, and where it stands."""
    from kubernetes import client as kubernetes

    def unknown_fields(value: Any, kind: str, where: str) -> list[str]:
        """Return the fields that the Kubernetes API does not have."""
        if kind.startswith("list["):
            inner = kind.removeprefix("list[").removesuffix("]")
            return [f for n, one in enumerate(value) for f in unknown_fields(one, inner, f"{where}[{n}]")]
        model = getattr(kubernetes, kind, None)
        if model is None:  # a plain value, or a map of them
            return []
        kinds = {model.attribute_map[name]: kind for name, kind in model.openapi_types.items()}
        found = [f"{where}.{name}" for name in value if name not in kinds]
        for name in set(value) & set(kinds):
            found += unknown_fields(value[name], kinds[name], f"{where}.{name}")
        return found

    return unknown_fields


@pytest.fixture(scope="module")
def browser() -> Iterator[Any]:
    """Chromium, through Playwright; `make test-browser` has both."""
    playwright = pytest.importorskip("playwright.sync_api", reason="needs the package playwright")
    program = os.environ.get("CHROMIUM") or shutil.which("chromium")
    if not program:
        pytest.skip("needs Chromium, by $CHROMIUM or on the path")
    with playwright.sync_playwright() as started:
        browser = started.chromium.launch(executable_path=program, args=["--no-sandbox"])
        yield browser
        browser.close()


@pytest.fixture(scope="module")
def look_at(browser: Any) -> Callable[..., None]:
    """Look at a page in the light, in the dark on a phone, and on a phone without JavaScript.

    axe-core finds nothing, nothing is wider than a phone, no script fails, and no other host is asked. Takes
    the address of the page, and what to do there before it is looked at.
    """
    axe = pytest.importorskip("axe_playwright_python", reason="needs the package axe-playwright-python")
    source = (Path(axe.__file__).parent / "axe.min.js").read_text("utf-8")
    wide, phone = {"width": 1200, "height": 800}, {"width": 360, "height": 740}
    views = [
        {"viewport": wide, "color_scheme": "light"},
        {"viewport": phone, "color_scheme": "dark"},
        {"viewport": phone, "java_script_enabled": False},
    ]

    def look_at(url: str, act: Callable[[Any], None] = lambda page: None, *, scripts: bool = True) -> None:
        for view in views if scripts else views[:2]:
            context, asked, errors = browser.new_context(**view), list[str](), list[str]()
            page = context.new_page()
            page.on("request", lambda request, asked=asked: asked.append(request.url))
            page.on(
                "console", lambda said, errors=errors: errors.append(said.text) if said.type == "error" else 0
            )
            page.on("pageerror", lambda error, errors=errors: errors.append(str(error)))
            response = page.goto(url)
            act(page)
            if view.get("java_script_enabled", True):
                width = page.evaluate("document.documentElement.scrollWidth")
                assert width <= view["viewport"]["width"], f"{url} is {width} pixels wide"
                page.evaluate(source)
                found = page.evaluate(
                    "axe.run().then(found => found.violations.map("
                    "each => [each.id, each.nodes.map(node => node.html.slice(0, 200))]))"
                )
                assert found == [], f"{url}: {found}"
            assert page.locator("h1").count() == 1, url
            # The console also tells of pages that are there to say that something is not.
            assert response is None or response.status >= 400 or not errors, f"{url}: {errors}"
            hosts = {each.partition("://")[2].partition("/")[0] for each in asked if "://" in each}
            assert hosts <= {url.partition("://")[2].partition("/")[0]}, f"{url} asks {hosts}"
            context.close()

    return look_at


@pytest.fixture(scope="session")
def s3_host() -> str:
    """The address of this machine that the S3 server has: where pods are to reach it, theirs for it."""
    return "127.0.0.1"


@pytest.fixture(scope="module")
def s3(tmp_path_factory: pytest.TempPathFactory, s3_host: str) -> Iterator[str]:
    """A bucket of an S3 server; other processes reach it by the environment.

    The server is moto's, in this process; or the program that the environment's S3_SERVER names (versitygw),
    as `make test-s3` has it.
    """
    import fsspec

    program = os.environ.get("S3_SERVER")
    server = versitygw(program, tmp_path_factory.mktemp("versitygw"), s3_host) if program else moto(s3_host)
    with server as endpoint, pytest.MonkeyPatch.context() as patch:
        for name, value in {**CREDENTIALS, "AWS_ENDPOINT_URL": endpoint}.items():
            patch.setenv(name, value)
        files = fsspec.get_filesystem_class("s3")
        files.clear_instance_cache()  # its clients keep the server that they first had
        files().makedirs("bucket", exist_ok=True)  # moto's servers of one process share what they hold
        try:
            yield "s3://bucket"
        finally:
            files.clear_instance_cache()


CREDENTIALS = {
    "AWS_ACCESS_KEY_ID": "test",
    "AWS_SECRET_ACCESS_KEY": "test",
    "AWS_DEFAULT_REGION": "us-east-1",
}


@contextmanager
def moto(host: str) -> Iterator[str]:
    """Run moto's S3 server in this process; gives its address."""
    from moto.server import ThreadedMotoServer

    server = ThreadedMotoServer(ip_address=host, port=0)
    server.start()
    host, port = server.get_host_and_port()
    try:
        yield f"http://{host}:{port}"
    finally:
        server.stop()


@contextmanager
def versitygw(program: str, folder: Path, host: str) -> Iterator[str]:
    """Run versitygw on a folder; gives its address. Others may take the port that was free before."""
    for name in ("files", "metadata"):
        (folder / name).mkdir()
    keys = ["--access", CREDENTIALS["AWS_ACCESS_KEY_ID"], "--secret", CREDENTIALS["AWS_SECRET_ACCESS_KEY"]]
    keys += ["--region", CREDENTIALS["AWS_DEFAULT_REGION"]]
    backend = ["posix", "--sidecar", str(folder / "metadata"), str(folder / "files")]
    while True:
        with socket.create_server((host, 0)) as free:
            address = f"{host}:{free.getsockname()[1]}"
        with open(folder / "log", "ab") as log:
            server = subprocess.Popen([program, "--port", address, *keys, *backend], stdout=log, stderr=log)
        try:
            while server.poll() is None and not is_listening(address):
                time.sleep(0.05)
            if server.poll() is None:
                yield f"http://{address}"
                return
            said = (folder / "log").read_text()
            assert "in use" in said, said
        finally:
            server.kill()
            server.wait()


def is_listening(address: str) -> bool:
    """Return whether a server takes connections at HOST:PORT."""
    host, _, port = address.partition(":")
    try:
        socket.create_connection((host, int(port))).close()
    except ConnectionRefusedError:
        return False
    return True


KILLED = 77
Action = Callable[[], object]


def _killed_at(step: int, action: Action) -> bool:
    """Run `action` in a process that is killed before its step `step`; False where it has fewer steps.

    A forked process ends itself in an audit hook, before the Nth call that changes something or opens a file
    for that: of what Python audits, all but reading. Between two of them lies at most one write.
    """
    child = os.fork()
    if child == 0:
        left = [step]

        def count(event: str, arguments: tuple[object, ...]) -> None:
            if _is_step(event, arguments):
                left[0] -= 1
                if left[0] < 0:
                    os._exit(KILLED)

        try:
            sys.addaudithook(count)
            action()
        except BaseException:  # noqa: BLE001 - the exit code is all that the parent sees
            os._exit(1)
        os._exit(0)
    code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
    assert code in (0, KILLED)
    return code == KILLED


def _is_step(event: str, arguments: tuple[object, ...]) -> bool:
    if event == "open":
        mode = arguments[1]  # None: os.open, for the ledger, and for what is synchronized after a rename
        return mode is None or any(letter in str(mode) for letter in "wax+")
    return event.startswith(("os.", "fcntl.", "shutil.")) and event not in ("os.listdir", "os.scandir")


@pytest.fixture
def killed_at() -> Callable[[int, Action], bool]:
    """Run something that is killed before one of its steps."""
    return _killed_at
