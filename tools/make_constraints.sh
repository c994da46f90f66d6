#!/bin/sh
# Resolve the pinned set of each stack anew: `make constraints`. Beam stays at the version whose Flink and Spark
# runners are tested with it; everything else is the newest that fits. Beside each set, the same set with the sha256
# of every file that the index has for it: `pip install --require-hashes -r constraints/tfx116.hashes.txt`.
#
#   tools/make_constraints.sh --hashes    only the files with the hashes, for the pinned sets as they are
set -eu
cd "$(dirname "$0")/.."
uv=${UV:-uv}
only=${1:-}

resolve() { # stack, TFX version, further arguments of `uv pip compile`
  stack=$1 tfx=$2
  shift 2
  if [ "$only" != --hashes ]; then
    printf 'tfx==%s\napache-beam==2.70.0\n' "$tfx" |
      "$uv" pip compile setup.py --all-extras --constraints - --upgrade --quiet --no-header --output-file "constraints/$stack.txt" "$@"
  fi
  "$uv" pip compile "constraints/$stack.txt" --no-deps --generate-hashes --quiet --no-header --no-annotate \
    --output-file "constraints/$stack.hashes.txt" "$@"
  echo "constraints/$stack.txt: $(grep -c '^[a-z]' "constraints/$stack.txt") packages"
}

resolve tfx116 1.16.0 --python-version 3.10 --python-platform x86_64-manylinux_2_17
resolve tfx121 1.21.0 --python-version 3.11 --universal
