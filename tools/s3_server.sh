#!/bin/sh
# Print the path of versitygw, an S3 server that keeps its buckets in a folder; build it where it is missing.
# Source: https://github.com/versity/versitygw, Apache-2.0. Used by tests alone.
set -e
version=v1.8.0
place=${XDG_CACHE_HOME:-$HOME/.cache}/mlplatform/versitygw/$version
PATH=$PATH:/usr/local/go/bin
if ! test -x "$place/versitygw"; then
	if ! command -v go >/dev/null; then
		echo "no S3 server: building versitygw needs Go 1.25 or later on the PATH" >&2
		exit 1
	fi
	GOBIN=$place CGO_ENABLED=0 nice go install "github.com/versity/versitygw/cmd/versitygw@$version" >&2
fi
echo "$place/versitygw"
