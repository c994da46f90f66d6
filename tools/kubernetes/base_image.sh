#!/bin/sh
# base_image.sh IMAGE: makes a Debian 13 with Python and puts it into podman's store, where no registry can be reached.
# This machine's certificates and pip's settings hold in it, too. Needs root, debootstrap and podman.
set -eu
here=$(cd "$(dirname "$0")" && pwd)
export CONTAINERS_CONF="$here/containers.conf"
podman image exists "$1" && exit 0
root=$(mktemp -d)
trap 'rm -rf "$root"' EXIT
debootstrap --variant=minbase --include=python3,python3-venv,ca-certificates trixie "$root/debian" >"$root/log" 2>&1 ||
  { tail -5 "$root/log" >&2; exit 1; }
rm -rf "$root"/debian/var/cache/apt/archives/*.deb "$root"/debian/var/lib/apt/lists/*
cp /etc/ssl/certs/ca-certificates.crt "$root/debian/etc/ssl/certs/ca-certificates.crt"
if [ -e /etc/pip.conf ]; then cp /etc/pip.conf "$root/debian/etc/"; fi
tar -C "$root/debian" -c . | podman import -q -c 'CMD ["python3"]' - "$1" >/dev/null
