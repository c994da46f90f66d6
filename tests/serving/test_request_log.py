"""The files of the request log: when they are finished, what bounds them, and what never gets in."""

import contextlib
import os
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import tensorflow as tf
from tensorflow_serving.apis import predict_pb2, prediction_log_pb2

from mlplatform.serving.request_log import RequestLog


def read(folder: Path) -> list[prediction_log_pb2.PredictionLog]:
    files = sorted(str(file) for file in folder.glob("*/*.tfrecord"))
    return [
        prediction_log_pb2.PredictionLog.FromString(record)
        for record in tf.data.TFRecordDataset(files).as_numpy_iterator()
    ]


def messages(content: bytes = b"x" * 1000) -> tuple[Any, Any]:
    request, response = predict_pb2.PredictRequest(), predict_pb2.PredictResponse()
    request.inputs["x"].tensor_content = content
    response.model_spec.name = "m"
    response.model_spec.version.value = 7
    return request, response


def size_of(folder: Path) -> int:
    size = 0
    for file in folder.glob("*/*"):
        with contextlib.suppress(FileNotFoundError):  # the log renames and removes its files meanwhile
            size += file.stat().st_size
    return size


def test_a_file_is_finished_by_age_though_nothing_more_comes(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, sampling_rate=1.0, max_bytes=1 << 30, max_age_s=0.3)
    before = int(time.time())
    log.write("predict_log", "m", *messages())
    deadline = time.monotonic() + 20
    while not list(tmp_path.glob("m/*.tfrecord")) and time.monotonic() < deadline:
        time.sleep(0.05)
    (entry,) = read(tmp_path)
    assert entry.log_metadata.model_spec.version.value == 7
    assert before <= entry.log_metadata.timestamp_secs <= time.time()
    assert not list(tmp_path.glob("m/*.open"))
    log.close()


def test_what_dead_processes_left_counts_and_goes_first(tmp_path: Path) -> None:
    from mlplatform.serving import request_log

    dead = subprocess.Popen([sys.executable, "-c", ""])
    dead.wait()
    folder = tmp_path / "m"
    folder.mkdir()
    host = request_log._host()
    left = [folder / f"20260101T00000{n}-{host}-{dead.pid}-00001.tfrecord.open" for n in range(5)]
    elsewhere = folder / "20260101T000008-elsewhere-1-00001.tfrecord.open"
    old = folder / "20260101T000007-elsewhere-1-00001.tfrecord.open"
    living = folder / f"20260101T000009-{host}-{os.getppid()}-00001.tfrecord.open"
    for file in (*left, elsewhere, old, living):
        file.write_bytes(b"x" * 9_000)
    os.utime(old, (1, 1))
    log = RequestLog(tmp_path, sampling_rate=1.0, max_bytes=64_000)
    for _ in range(60):
        log.write("predict_log", "m", *messages())
    log.close()
    assert size_of(tmp_path) <= 64_000
    assert not any(file.exists() for file in (*left, old))
    assert living.exists()
    assert elsewhere.exists()  # it may live: only its age would tell
    assert 35 < len(list(folder.glob("*.tfrecord"))) * 4 <= 64


@pytest.mark.parametrize("written", [20_000, 200_000], ids=["below the limit", "above it"])
def test_a_server_that_restarts_often_keeps_the_limit_too(tmp_path: Path, written: int) -> None:
    folder = tmp_path / "m"
    folder.mkdir()
    for n in range(10):
        (folder / f"2026010{n}T000000-elsewhere-1-00001.tfrecord").write_bytes(b"x" * (written // 10))
    log = RequestLog(tmp_path, sampling_rate=1.0, max_bytes=64_000)
    log.write("predict_log", "m", *messages())
    log.close()
    assert size_of(tmp_path) <= 64_000
    assert len(list(folder.iterdir())) == (11 if written < 64_000 else 3)


def test_many_models_keep_the_limit_too(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, sampling_rate=1.0, max_bytes=64_000)
    for n in range(300):
        log.write("predict_log", f"m{n % 100}", *messages())
        if n % 50 == 0:
            time.sleep(0.05)
            assert size_of(tmp_path) <= 64_000
    log.close()
    assert 40_000 < size_of(tmp_path) <= 64_000


@pytest.mark.parametrize("problem", ["folder", "kind"])
def test_an_error_stops_the_log_and_nothing_else(
    tmp_path: Path, caplog: pytest.LogCaptureFixture, problem: str
) -> None:
    folder = tmp_path / "log"
    if problem == "folder":
        folder.write_text("a file")
    log = RequestLog(folder, sampling_rate=1.0, max_bytes=64_000)
    for _ in range(3):
        log.write("predict_log" if problem == "folder" else "no_log", "m", *messages())
    log.close()
    log.close()
    assert not log.takes_next()
    assert caplog.text.count("the request log stops") == 1


def test_texts_in_raw_content_do_not_get_past_the_list(tmp_path: Path) -> None:
    log = RequestLog(tmp_path, sampling_rate=1.0, max_bytes=64_000, never=["seller_email"])
    request, response = messages(b"seller_email: a@example.org")
    request.inputs["x"].dtype = 7
    request.inputs["seller_email"].string_val.append(b"a@example.org")
    log.write("predict_log", "m", request, response)
    log.close()
    (entry,) = read(tmp_path)
    assert b"example.org" not in entry.SerializeToString()
