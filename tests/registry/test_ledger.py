"""The ledger on every backend: any sequence of writers, races, kills, and files that others wrote."""

import json
import logging
import multiprocessing
import os
import shutil
import uuid
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from mlplatform.registry.errors import LedgerAccessError
from mlplatform.registry.event import Draft, Event
from mlplatform.registry.ledger import Ledger

QUICK = settings(
    max_examples=25,
    deadline=None,
    derandomize=True,
    database=None,
    suppress_health_check=list(HealthCheck),
)
STREAMS = ("models/items", "runs/2026-01-01T00:00:00.5", "runs/a b/..%2F", "models/aside", "runs/.hidden")


def count_up(events: list[Event]) -> Draft:
    """A decision that shows whether it saw all that was before it."""
    return Draft("counted", facts={"before": len(events)})


class LedgerContract:
    """What a ledger promises wherever it lies."""

    ROUNDS = 12  # of writers at once

    @pytest.fixture
    def url(self) -> str:
        raise NotImplementedError

    def test_events_are_read_as_they_were_written(self, url: str) -> None:
        written = Ledger(url).append("runs/r1", "node.started", node="Trainer", nested={"a": [1, None, "ä"]})
        other = Ledger(url).append("models/items", "model.pushed", run="r1", version=1)
        (found,) = Ledger(url).events("runs/r1")
        assert found == written
        assert (found.number, found.kind, found.run) == (1, "node.started", "r1")
        assert (found.get("node"), found.get("nested")) == ("Trainer", {"a": [1, None, "ä"]})
        assert found.at.endswith("+00:00")
        assert found.by
        assert Ledger(url).events("models/items") == [other]
        assert Ledger(url).events("models/none") == []
        assert (Ledger(url).streams("runs"), Ledger(url).streams("datasets")) == (["runs/r1"], [])

    @QUICK
    @given(steps=st.lists(st.tuples(st.integers(0, 1), st.sampled_from(STREAMS), st.booleans()), max_size=45))
    def test_any_sequence_of_two_writers(self, url: str, steps: list[tuple[int, str, bool]]) -> None:
        place = f"{url}/{uuid.uuid4().hex}"
        ledgers, expected = (Ledger(place), Ledger(place)), dict[str, list[int]]()
        for writer, stream, decides in steps:
            before = expected.setdefault(stream, [])
            if decides:
                event = ledgers[writer].decide(stream, count_up)
            else:
                event = ledgers[writer].append(stream, "counted", before=len(before))
            assert event is not None
            assert event.number == len(before) + 1
            before.append(len(before))
        for ledger in (*ledgers, Ledger(place)):
            assert ledger.streams("runs") == sorted(s for s in expected if s.startswith("runs"))
            assert ledger.streams("models") == sorted(s for s in expected if s.startswith("models"))
            for stream, counts in expected.items():
                assert [event.get("before") for event in ledger.events(stream)] == counts

    def test_writers_at_once_all_decide_by_all_that_was_before(self, url: str) -> None:
        with ThreadPoolExecutor(6) as threads:
            for _ in range(self.ROUNDS):
                threads.submit(lambda: Ledger(url).decide("models/items", count_up))
                threads.submit(lambda: Ledger(url).append("models/items", "counted"))
        events = Ledger(url).events("models/items")
        assert [event.number for event in events] == list(range(1, 2 * self.ROUNDS + 1))
        assert len({event.id for event in events}) == 2 * self.ROUNDS
        assert all(event.get("before") in (None, event.number - 1) for event in events)

    def test_a_decision_may_be_none_or_a_refusal(self, url: str) -> None:
        def refuse(events: list[Event]) -> Draft:
            raise PermissionError("no")

        ledger = Ledger(url)
        assert ledger.decide("models/items", lambda events: None) is None
        with pytest.raises(PermissionError, match="no"):
            ledger.decide("models/items", refuse)
        assert ledger.events("models/items") == []

    def test_a_write_whose_answer_was_lost_is_not_written_twice(
        self, url: str, monkeypatch: pytest.MonkeyPatch
    ) -> None:
        """As a client does that sends a request again: the second one finds the name taken, by the first."""
        ledger = Ledger(url)
        real = ledger.storage.create
        monkeypatch.setattr(ledger.storage, "create", lambda path, data: real(path, data) and False)
        ledger.append("models/items", "model.pushed")
        ledger.decide("models/items", count_up)
        assert [event.get("before") for event in Ledger(url).events("models/items")] == [None, 1]

    def test_long_streams_take_few_requests(
        self, url: str, counted: Callable[[Ledger], dict[str, int]]
    ) -> None:
        writer = Ledger(url)
        for _ in range(47):
            last = writer.append("models/items", "counted")
        ledger = Ledger(url)
        requests = counted(ledger)
        assert [event.number for event in ledger.events("models/items")] == list(range(1, 48))
        assert sum(requests.values()) <= 17
        requests.clear()
        assert ledger.events("models/items")[-1] == last
        assert requests == {"names": 1}
        requests.clear()
        ledger.append("models/items", "counted")
        assert requests["create"] == 1
        assert requests.get("names", 0) <= 2  # a writer that knows the last number does not look for it

    @pytest.mark.parametrize(
        "content",
        [
            b"",
            b"{}",
            b"[]",
            b"\xff",
            b"null",
            b'{"kind": 3}',
            b"[" * 50_000,
            b"9" * 6000,
            b'{"kind": "a", "at": 1}',
        ],
    )
    def test_what_is_no_event_is_skipped_and_reported_once(
        self, url: str, content: bytes, caplog: pytest.LogCaptureFixture
    ) -> None:
        Ledger(url).append("models/items", "counted")
        Ledger(url).storage.put("models/items/00000002.json", content)
        Ledger(url).append("models/items", "counted")
        with caplog.at_level(logging.WARNING):
            for _ in range(3):
                assert [event.number for event in Ledger(url).events("models/items")] == [1, 3]
        assert caplog.text.count("00000002.json is damaged and skipped") == 1

    def test_names_that_are_not_ours_are_ignored(self, url: str) -> None:
        ledger = Ledger(url)
        for name in (
            "1.json",
            "notes",
            "000000001.json",
            "00000001.json.bak",
            "00000009.all.json.x",
            "٠٠٠٠٠٠٠٩.json",
        ):
            ledger.storage.put(f"models/items/{name}", b'{"kind": "x"}')
        assert ledger.append("models/items", "counted").number == 1
        assert len(ledger.events("models/items")) == 1

    @pytest.mark.parametrize("content", [b"", b"[]", b"{", b'{"1": 5, "2": {"kind": ""}}', b'{"x": {}}'])
    def test_damaged_compacted_events_are_read_from_their_own_files(self, url: str, content: bytes) -> None:
        for _ in range(17):
            Ledger(url).append("models/items", "counted")
        Ledger(url).storage.put("models/items/00000016.all.json", content)
        assert [event.number for event in Ledger(url).events("models/items")] == list(range(1, 18))

    def test_kinds_and_facts_of_a_later_release_are_kept(self, url: str) -> None:
        later = {"kind": "index.built", "at": "", "by": "", "run": "", "id": "7", "shape": [1, {"a": None}]}
        Ledger(url).storage.put("models/items/00000001.json", json.dumps(later).encode())
        (event,) = Ledger(url).events("models/items")
        assert event.as_json() == later

    def test_a_file_after_which_no_number_is_left_is_named(self, url: str) -> None:
        Ledger(url).storage.put("models/items/99999999.json", b"{}")
        with pytest.raises(LedgerAccessError, match=r"99999999.json cannot be opened: no number is left"):
            Ledger(url).append("models/items", "counted")


class TestFolder(LedgerContract):
    @pytest.fixture
    def url(self, tmp_path: Path) -> str:
        return str(tmp_path / "ledger")

    def test_processes_at_once(self, url: str) -> None:
        with multiprocessing.get_context("fork").Pool(4) as pool:
            pool.map(_decide_ten_times, [url] * 4)
        assert [event.get("before") for event in Ledger(url).events("models/items")] == list(range(40))

    def test_a_writer_that_is_killed_at_any_step_has_written_or_not(
        self, url: str, killed_at: Callable[[int, Callable[[], object]], bool]
    ) -> None:
        for number in range(15):  # the next one is compacted with them
            Ledger(url).append("models/items", "counted", before=number)
        step, written, was_killed = 0, set(), True
        while was_killed:
            place = f"{url}-{step}"
            shutil.copytree(url, place)
            was_killed = killed_at(step, lambda: Ledger(place).decide("models/items", count_up))  # noqa: B023
            events = Ledger(place).events("models/items")
            assert [event.get("before") for event in events] == list(range(len(events)))
            written.add(len(events))
            assert Ledger(place).append("models/items", "counted").number == len(events) + 1
            step += 1
        assert written == {15, 16}

    @pytest.mark.parametrize("kind", ["folder", "fifo", "link to itself", "link to nothing"])
    def test_an_event_that_is_no_file_is_skipped(self, url: str, kind: str, tmp_path: Path) -> None:
        place = Path(url) / "models" / "items" / "00000002.json"
        Ledger(url).append("models/items", "counted")
        {
            "folder": place.mkdir,
            "fifo": lambda: os.mkfifo(place),
            "link to itself": lambda: place.symlink_to(place),
            "link to nothing": lambda: place.symlink_to(tmp_path / "nothing"),
        }[kind]()
        assert Ledger(url).append("models/items", "counted").number == 3
        assert [event.number for event in Ledger(url).events("models/items")] == [1, 3]

    @pytest.mark.parametrize("place", ["models/items", "models", "."])
    @pytest.mark.parametrize("kind", ["file", "fifo", "link to itself"])
    def test_a_stream_that_is_no_folder_is_one_clear_error(self, url: str, place: str, kind: str) -> None:
        path = Path(url) / place
        path.parent.mkdir(parents=True, exist_ok=True)
        {
            "file": path.touch,
            "fifo": lambda: os.mkfifo(path),
            "link to itself": lambda: path.symlink_to(path),
        }[kind]()
        for command in (
            lambda: Ledger(url).events("models/items"),
            lambda: Ledger(url).append("models/items", "counted"),
            lambda: Ledger(url).decide("models/items", count_up),
        ):
            with pytest.raises(LedgerAccessError, match="cannot be opened"):
                command()

    def test_a_full_disk_leaves_the_ledger_as_it_was(self, url: str, monkeypatch: pytest.MonkeyPatch) -> None:
        Ledger(url).append("models/items", "counted")

        def full(self: Path, data: bytes) -> int:
            raise OSError(28, "No space left on device")

        with monkeypatch.context() as patched:
            patched.setattr(Path, "write_bytes", full)
            with pytest.raises(OSError, match="No space left"):
                Ledger(url).append("models/items", "counted")
        assert len(Ledger(url).events("models/items")) == 1
        assert Ledger(url).append("models/items", "counted").number == 2


class TestMemory(LedgerContract):
    @pytest.fixture
    def url(self) -> str:
        return f"memory://{uuid.uuid4().hex}"


class TestS3(LedgerContract):
    ROUNDS = 4  # each takes a client some requests
    # What is in a file is the same wherever it comes from.
    test_what_is_no_event_is_skipped_and_reported_once = None  # type: ignore[assignment]
    test_damaged_compacted_events_are_read_from_their_own_files = None  # type: ignore[assignment]

    @pytest.fixture
    def url(self, s3: str) -> str:
        return f"{s3}/{uuid.uuid4().hex}"

    def test_any_sequence_of_two_writers(self, url: str) -> None:
        """One sequence: each step takes some requests of a real client."""
        steps = [(n % 2, STREAMS[n % 3 % 2], n % 5 < 3) for n in range(20)]
        LedgerContract.test_any_sequence_of_two_writers.hypothesis.inner_test(self, url, steps)  # type: ignore[attr-defined]


@pytest.fixture
def counted(monkeypatch: pytest.MonkeyPatch) -> Callable[[Ledger], dict[str, int]]:
    """Count a ledger's requests by kind from now on, each file of several that are read at once as one."""

    def counted(ledger: Ledger) -> dict[str, int]:
        requests: dict[str, int] = {}

        def counting(name: str) -> Callable[..., Any]:
            real = getattr(ledger.storage, name)

            def method(*arguments: Any, **named: Any) -> Any:
                count = len(arguments[0]) if name == "read_all" else 1
                if count:
                    requests[name] = requests.get(name, 0) + count
                return real(*arguments, **named)

            return method

        for name in ("read", "read_all", "names", "create", "put", "size", "delete", "age_s"):
            if name != "read_all" or ledger.storage.local("") is None:  # which there calls `read`
                monkeypatch.setattr(ledger.storage, name, counting(name))
        return requests

    return counted


def _decide_ten_times(url: str) -> None:
    for _ in range(10):
        Ledger(url).decide("models/items", count_up)
