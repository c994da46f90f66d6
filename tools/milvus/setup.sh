#!/bin/sh
# setup.sh DIR PYTHON: puts an environment with Milvus Lite (Milvus' own core in one process) under DIR, once.
# 75 MB to download from PyPI. Its client needs a newer protobuf than TFX takes, so it is apart from ours.
set -e
[ -f "$1/ready" ] && exit 0
"$2" -m venv "$1"
"$1/bin/python" -m pip install -q --only-binary :all: milvus-lite==2.5.1 pymilvus==2.5.18 pyarrow==18.1.0 'numpy<3' 'setuptools<81'
touch "$1/ready"
