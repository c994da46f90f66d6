"""Roll-backs, changes and signatures of pushed models, from the ledger to the answers of real servers."""

import json
import shutil
import subprocess
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from mlplatform.registry import ModelStore
from mlplatform.registry.errors import SigningKeyError
from mlplatform.registry.ledger import Ledger
from mlplatform.registry.model_ledger import ledger_of
from mlplatform.serving.client import RequestFailedError
from mlplatform.serving.settings import SettingsError

pytestmark = pytest.mark.e2e

TWO, THREE = "half_plus_two/00000123", "half_plus_three/1"  # half of 2, plus two or three: 3 or 4
X = np.array([[2.0]], np.float32)


def half(client: Any, **spec: Any) -> float:
    return float(client.predict("half", {"x": X}, **spec)["y"][0, 0])


def states(client: Any) -> dict[int, str]:
    return {s.version: s.state for s in client.status("half")}


def wait_for(condition: Callable[[], bool]) -> None:
    while not condition():  # the test's own time limit ends a wait in vain
        time.sleep(0.02)


@pytest.fixture
def store(tmp_path: Path, models: Path) -> ModelStore:
    """Version 1 and 2 of `half`, `stable` on 2 and before on 1, `canary` on 2 alone."""
    store = ModelStore(tmp_path / "models")
    store.push(models / TWO, "half")
    store.promote("half", "1")
    store.push(models / THREE, "half")
    store.promote("half", "2")
    store.promote("half", "2", "canary")
    return store


class TestRollBack:
    @pytest.mark.slow
    def test_clients_of_a_label_get_what_serves_from_every_server_all_the_time(
        self, serve: Any, client: Any, tmp_path: Path, store: ModelStore
    ) -> None:
        servers = [serve(root=tmp_path), serve(root=tmp_path)]
        asking = [client(server, over=over) for server in servers for over in ("grpc", "rest")]
        for one in asking:
            assert (half(one), half(one, label="stable"), half(one, label="canary")) == (4.0, 4.0, 4.0)

        store.rollback("half", why="bad on shoes")
        assert store.labels("half") == {"stable": 1, "canary": 1}
        for one in asking:
            while (answer := half(one, label="stable")) != 3.0:  # an error would end it: none is lost
                assert answer == 4.0
            assert half(one, label="canary") in (3.0, 4.0)
            wait_for(lambda one=one: states(one) == {1: "AVAILABLE", 2: "END"})
            assert (half(one), half(one, label="stable"), half(one, label="canary")) == (3.0, 3.0, 3.0)

        store.promote("half", "2")
        for one in asking:
            while (answer := half(one, label="stable")) != 4.0:
                assert answer == 3.0
            assert half(one, label="canary") == 3.0

    def test_one_whose_folder_was_not_moved_yet_counts(
        self, serve: Any, client: Any, tmp_path: Path, store: ModelStore
    ) -> None:
        """As one leaves it that was killed after its event: the version still lies where servers look."""
        asking = client(serve(root=tmp_path))
        Ledger(ledger_of(store.url)).append(
            "models/half", "model.rolled_back", version=2, versions=[2], labels={"stable": 1}
        )
        wait_for(lambda: states(asking) == {1: "AVAILABLE", 2: "END"})
        assert (half(asking), half(asking, label="stable")) == (3.0, 3.0)
        assert (store.models_dir / "half" / "2").is_dir()

    def test_a_damaged_event_takes_no_version_away(
        self, serve: Any, client: Any, tmp_path: Path, store: ModelStore, caplog: Any
    ) -> None:
        asking = client(serve(root=tmp_path))
        stream = Path(ledger_of(store.url)) / "models" / "half"
        (stream / f"{len(list(stream.iterdir())) + 1:08}.json").write_text('{"kind"')
        store.promote("half", "1", "old")  # and what comes after it arrives
        wait_for(lambda: states(asking) == {1: "AVAILABLE", 2: "AVAILABLE"})
        assert (half(asking, label="old"), half(asking, label="stable")) == (3.0, 4.0)
        assert caplog.text.count("is damaged and skipped") == 1

    def test_a_ledger_that_is_gone_for_a_while_leaves_all_as_it_was(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, store: ModelStore, caplog: Any
    ) -> None:
        asking = client(serve(root=tmp_path))
        stream = Path(ledger_of(store.url)) / "models" / "half"
        stream.rename(tmp_path / "aside")
        stream.touch()
        store.push(models / TWO, "other")
        assert asking.wait_until_available("other").version == 1  # the server has looked since
        assert half(asking, label="stable") == 4.0
        assert caplog.text.count("the labels of model half stay as they were") == 1
        stream.unlink()
        (tmp_path / "aside").rename(stream)
        store.rollback("half")
        wait_for(lambda: half(asking, label="stable") == 3.0)


class TestChanged:
    def change(self, version: Path) -> None:
        """Other weights, of the same model: it would load and answer."""
        (file,) = (version / "variables").glob("variables.data*")
        content = bytearray(file.read_bytes())
        content[-1] ^= 1
        file.write_bytes(content)

    @pytest.mark.parametrize("by", ["root", "base path"])
    def test_a_version_that_was_changed_since_its_push_is_not_loaded(
        self, serve: Any, client: Any, tmp_path: Path, store: ModelStore, models: Path, by: str
    ) -> None:
        base = store.models_dir / "half"
        settings = {"root": tmp_path} if by == "root" else {"model_name": "half", "model_base_path": base}
        server = serve(**settings)
        asking = client(server)
        assert half(asking) == 4.0
        shutil.copytree(models / TWO, tmp_path / "m")
        (tmp_path / "m" / "assets.extra").mkdir()
        (tmp_path / "m" / "assets.extra" / "note").write_text("3")
        server.manager._poll_wait_s = 3600  # it looks only when it is asked to
        server.manager.look_now()
        store.push(tmp_path / "m", "half")
        (base / "3" / "assets.extra" / "note").write_text("4")
        server.manager.look_now()
        (status,) = asking.status("half", 3)
        assert status.state == "END"
        assert f"{base / '3'} is not what was pushed" in status.error
        assert half(asking) == 4.0

    def test_one_that_something_else_put_there_is_loaded(
        self, serve: Any, client: Any, tmp_path: Path, store: ModelStore, push: Any
    ) -> None:
        push(store.models_dir / "half", 3, TWO)
        assert half(client(serve(root=tmp_path))) == 3.0


@pytest.fixture(scope="module")
def keys(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with two pairs of keys: mine.pem, mine.pub, theirs.pem, theirs.pub."""
    folder = tmp_path_factory.mktemp("keys")
    for name in ("mine", "theirs"):
        private = ["openssl", "ecparam", "-name", "prime256v1", "-genkey", "-noout", "-out", f"{name}.pem"]
        public = ["openssl", "ec", "-in", f"{name}.pem", "-pubout", "-out", f"{name}.pub"]
        for command in (private, public):
            subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return folder


class TestSignatures:
    def test_only_what_the_trusted_key_signed_is_served(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, keys: Path
    ) -> None:
        store = ModelStore(tmp_path / "models")
        mine, theirs = str(keys / "mine.pem"), (keys / "theirs.pem").read_text()
        store.push(models / TWO, "half", signing_key=mine)
        store.push(models / THREE, "unsigned")
        store.push(models / THREE, "foreign", signing_key=theirs)
        store.push(models / THREE, "changed", signing_key=mine)
        store.push(models / THREE, "replayed")
        folder = store.models_dir / "changed" / "1"
        (folder / "push.json").write_text(
            (folder / "push.json").read_text().replace('"why": ""', '"why": "x"')
        )
        streams = Path(ledger_of(store.url)) / "models"
        for folder in (store.models_dir, streams):
            shutil.rmtree(folder / "replayed")
            shutil.copytree(folder / "half", folder / "replayed")

        asking = client(
            serve(root=tmp_path, require_signature=True, signature_public_key=str(keys / "mine.pub"))
        )

        assert half(asking) == 3.0
        for name, problem in {
            "unsigned": "it is not signed",
            "foreign": "its signature does not hold",
            "changed": "Hash mismatch for 'push.json'",
            "replayed": "it was signed for 'half' and lies under 'replayed'",
        }.items():
            (status,) = asking.status(name)
            text = status.error.replace("\\'", "'")  # as the digest in it has a quote or none
            assert (status.state, problem in text) == ("END", True), status
            with pytest.raises(RequestFailedError, match="NOT_FOUND"):
                asking.predict(name, {"x": X})

    def test_whoever_rewrites_the_records_too_is_found_out(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, keys: Path
    ) -> None:
        """Who may write the root can make digests agree, not signatures."""
        store = ModelStore(tmp_path / "models")
        version = store.push(models / TWO, "half", signing_key=str(keys / "mine.pem")).version
        forged = ModelStore(tmp_path / "forged" / "models")
        other = forged.push(models / THREE, "half").version
        shutil.copy(version.path / "push.sig", other.path)
        for place, other_place in ((store.url, forged.url), (ledger_of(store.url), ledger_of(forged.url))):
            shutil.rmtree(place)
            Path(other_place).rename(place)
        assert store.version("half", "1").integrity() == "intact"
        server = serve(
            root=tmp_path, require_signature=True, signature_public_key=(keys / "mine.pub").read_text()
        )
        (status,) = client(server).status("half")
        assert "its signature does not hold" in status.error

    def test_a_model_is_pushed_again_to_be_signed_and_then_no_more(
        self, tmp_path: Path, models: Path, keys: Path
    ) -> None:
        store = ModelStore(tmp_path / "models")
        mine, theirs = str(keys / "mine.pem"), str(keys / "theirs.pem")
        store.push(models / TWO, "half")
        pushed = [store.push(models / TWO, "half", signing_key=key) for key in (mine, mine, theirs, "")]
        assert [(each.version.version, each.is_new) for each in pushed] == [
            *((2, True), (2, False), (3, True), (3, False)),
        ]
        assert [v.is_signed for v in store.versions("half")] == [False, True, True]

    def test_the_library_of_openssf_verifies_them(self, tmp_path: Path, models: Path, keys: Path) -> None:
        from model_signing import hashing, verifying

        store = ModelStore(tmp_path / "models")
        folder = store.push(models / TWO, "half", signing_key=str(keys / "mine.pem")).version.path
        config = verifying.Config().use_elliptic_key_verifier(public_key=keys / "mine.pub")
        config.set_hashing_config(
            hashing.Config().set_ignored_paths(paths=["push.sig"], ignore_git_paths=False)
        )
        config.verify(folder, folder / "push.sig")
        statement = json.loads((folder / "push.sig").read_text())
        assert statement["mediaType"].startswith("application/vnd.dev.sigstore.bundle")

    def test_keys_come_from_the_environment_too(
        self, serve: Any, client: Any, tmp_path: Path, models: Path, keys: Path, monkeypatch: Any
    ) -> None:
        store = ModelStore(tmp_path / "models")
        store.push(models / TWO, "half", signing_key=(keys / "mine.pem").read_text())
        monkeypatch.setenv("MLPLATFORM_PUBLIC_KEY", (keys / "mine.pub").read_text())
        assert half(client(serve(root=tmp_path, require_signature=True))) == 3.0

    def test_without_a_key_nothing_starts(
        self, serve: Any, tmp_path: Path, keys: Path, monkeypatch: Any
    ) -> None:
        monkeypatch.delenv("MLPLATFORM_PUBLIC_KEY", raising=False)
        with pytest.raises(SettingsError, match=r"^require_signature needs a key to trust") as caught:
            serve(root=tmp_path, require_signature=True)
        assert "give --signature_public_key" in caught.value.named("--")
        (tmp_path / "none.pem").write_text("not a key")
        for file in (tmp_path / "none.pem", tmp_path / "gone.pem"):
            with pytest.raises(SigningKeyError, match="cannot be used as a key"):
                serve(root=tmp_path, require_signature=True, signature_public_key=str(file))

    def test_a_key_that_is_none_pushes_nothing(self, tmp_path: Path, models: Path) -> None:
        store = ModelStore(tmp_path / "models")
        for key in (str(tmp_path / "gone.pem"), "-----BEGIN EC PRIVATE KEY-----\nx\n"):
            with pytest.raises(SigningKeyError, match="cannot be used as a key") as raised:
                store.push(models / TWO, "half", signing_key=key)
            assert "BEGIN" not in str(raised.value)
        assert store.versions("half") == []
