#!/bin/sh
# Make the development environment in .venv: find an interpreter that a stack supports, install the pinned
# set, byte-compile it, install this checkout. Needs no root. `make env` calls it; so does every other target.
#
#   tools/make_env.sh [DIR]         DIR defaults to .venv
#   MLPLATFORM_STACK=tfx116|tfx121  take this stack instead of the best one that the machine can have
#   MLPLATFORM_PYTHON=PATH          take this interpreter
set -eu
cd "$(dirname "$0")/.."
venv=${1:-.venv}

say() { printf '%s\n' "$*" >&2; }
die() { say "" "mlplatform set-up: $*"; exit 1; }

[ "$(uname -s)/$(uname -m)" = "Linux/x86_64" ] ||
  die "TFX has wheels for Linux on x86-64 only; this is $(uname -s) on $(uname -m). Use a Linux container or machine."

# "3.12" for an interpreter that runs, nothing for one that does not (such as a pyenv shim of another version).
version_of() { "$1" -c 'import sys; print("%d.%d" % sys.version_info[:2])' 2>/dev/null || true; }

# --- the stacks that this machine's C library can have, best first (ml-metadata 1.21 needs glibc 2.39)
glibc=$(getconf GNU_LIBC_VERSION 2>/dev/null | awk '{print $2}')
[ -n "$glibc" ] || die "this Linux has no glibc (musl?), and TFX has no wheels for it. Use a glibc distribution."
new_glibc=$(awk -v v="$glibc" 'BEGIN { split(v, p, "."); print (p[1] > 2 || (p[1] == 2 && p[2] >= 39)) }')
case "${MLPLATFORM_STACK:-}" in
  "") if [ "$new_glibc" = 1 ]; then wanted="3.13 3.12 3.11 3.10"; else wanted="3.10"; fi ;;
  tfx116) wanted="3.10" ;;
  tfx121) wanted="3.13 3.12 3.11"
    [ "$new_glibc" = 1 ] || die "the stack tfx121 needs glibc >= 2.39 and this system has $glibc (Ubuntu 24.04 and Debian 13 have it). Leave MLPLATFORM_STACK away to get tfx116." ;;
  *) die "MLPLATFORM_STACK is '$MLPLATFORM_STACK'; it takes tfx116 or tfx121." ;;
esac

find_uv() {
  for uv in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv" "$venv-uv/bin/uv"; do
    if command -v "$uv" >/dev/null 2>&1; then command -v "$uv"; return; fi
  done
}

# uv out of the package index, in a small environment of its own, with any Python 3 that there is.
install_uv() {
  for any in "$@" python3 /usr/bin/python3 "${PYENV_ROOT:-$HOME/.pyenv}"/versions/3.*/bin/python; do
    [ -n "$(version_of "$any")" ] || continue
    "$any" -m venv "$venv-uv" >/dev/null 2>&1 || { rm -rf "$venv-uv"; continue; }
    say "-- installing uv (with $any)"
    "$venv-uv/bin/python" -m pip install --quiet --disable-pip-version-check uv && return
    rm -rf "$venv-uv"
  done
}

# --- an interpreter: PATH, pyenv, what uv knows
python=${MLPLATFORM_PYTHON:-}
uv=$(find_uv)
if [ -z "$python" ]; then
  for want in $wanted; do
    for candidate in "python$want" python3 python "/usr/bin/python$want" "${PYENV_ROOT:-$HOME/.pyenv}"/versions/"$want"*/bin/python; do
      if [ "$(version_of "$candidate")" = "$want" ]; then python=$("$candidate" -c 'import sys; print(sys.executable)'); break 2; fi
    done
    if [ -n "$uv" ] && candidate=$("$uv" python find --system --no-python-downloads "$want" 2>/dev/null); then python=$candidate; break; fi
  done
fi
[ -n "$uv" ] || { install_uv ${python:+"$python"}; uv=$(find_uv); }
if [ -z "$python" ]; then
  say "-- no Python $(echo "$wanted" | sed 's/ /, /g') on PATH, under pyenv or known to uv; asking uv for Python 3.10"
  if [ -n "$uv" ] && "$uv" python install 3.10 >&2; then
    python=$("$uv" python find --system 3.10)
  else
    die "no Python that a stack supports was found, and none could be fetched.
  Looked for: Python $wanted on PATH, under pyenv, known to uv${uv:+ ($uv)}.
  Install one of them, for example:
    Ubuntu 24.04, Debian 13:  apt-get install python3 python3-venv
    Ubuntu 22.04:             apt-get install python3.10 python3.10-venv
    elsewhere:                pyenv install 3.10     or     uv python install 3.10
  then run the same command again."
  fi
fi
[ -n "$uv" ] || die "uv was not found and could not be installed. Give one Python a working venv and pip
  (Debian, Ubuntu: apt-get install python3-venv) or install uv yourself (pip install uv), then run the same command again."

case "$(version_of "$python")" in
  3.10) stack=tfx116 ;;
  3.11 | 3.12 | 3.13) stack=tfx121 ;;
  *) die "$python is Python $(version_of "$python"); the stacks need 3.10 (tfx116) or 3.11 to 3.13 (tfx121)." ;;
esac
[ "$stack" = tfx116 ] || [ "$new_glibc" = 1 ] ||
  die "$python belongs to the stack tfx121, which needs glibc >= 2.39; this system has $glibc. Give a Python 3.10."

# --- the environment; the mark is written last, so an interrupted set-up is made again
mark="$stack $python $(cksum <"constraints/$stack.hashes.txt")"
started=$(date +%s)
if [ "$(cat "$venv/ready" 2>/dev/null)" != "$mark" ]; then
  rm -f "$venv/ready"
  say "mlplatform set-up: stack $stack, $python, glibc $glibc"
  "$uv" venv --quiet --clear --python "$python" "$venv"
  say "-- installing $(grep -c '^[a-z]' "constraints/$stack.txt") pinned packages (3 GB on disk, about 1 GB to download the first time) and byte-compiling them"
  if [ -t 2 ]; then # uv shows its own progress on a terminal
    "$uv" pip install --python "$venv/bin/python" --compile-bytecode --require-hashes -r "constraints/$stack.hashes.txt"
  else
    (while sleep 20; do say "   still installing, $(($(date +%s) - started)) s"; done) &
    ticker=$!
    trap 'kill $ticker 2>/dev/null || true' EXIT
    "$uv" pip install --quiet --python "$venv/bin/python" --compile-bytecode --require-hashes -r "constraints/$stack.hashes.txt" >&2
    kill $ticker 2>/dev/null || true
  fi
fi
say "-- installing this checkout, and building the C library of the dataset store"
library=mlplatform/datasets/format/native/library.abi3.so
rm -f "$library"
"$uv" pip install --quiet --python "$venv/bin/python" --no-deps --editable . >&2
[ -e "$library" ] ||
  say "   not built (is there a C compiler?): the dataset store takes its slower way; everything works all the same"
"$venv/bin/python" -m compileall -q mlplatform components pipelines >/dev/null # it follows no links
echo "$mark" >"$venv/ready"
say "-- ready in $(($(date +%s) - started)) s: $venv"
