#!/bin/sh
# build.sh DIR [PROGRAM...]: builds programs of Kubernetes (default: all of a node) into DIR/bin, from the Go module
# proxy; those that are there are kept. Needs Go 1.24 or newer and 2 GB of memory; all of them take 10 minutes of two
# cores the first time, half of that kube-apiserver.
set -eu
version=1.34.3
minor=${version#1.}
mkdir -p "$1/bin"
bin=$(cd "$1/bin" && pwd)
shift
[ $# -gt 0 ] || set -- kube-apiserver kubectl kube-controller-manager kube-scheduler kubelet kube-proxy
missing=
for program in "$@"; do
  [ -x "$bin/$program" ] || missing="$missing $program"
done
[ -n "$missing" ] || exit 0
command -v go >/dev/null || { echo "build.sh: go is missing; install Go 1.24 or newer" >&2; exit 1; }
source=$(mktemp -d)
trap 'rm -rf "$source"' EXIT
module=$(cd "$source" && GOFLAGS=-mod=mod go mod download -json "k8s.io/kubernetes@v$version" | sed -n 's/.*"Dir": "\(.*\)".*/\1/p')
cp -r --no-preserve=mode "$module/." "$source/kubernetes"
cd "$source/kubernetes"
# The published module has neither vendor/ nor staging/: the modules that lie there in the repository come by version.
rm -rf vendor go.work go.work.sum
sed -i -E "s#=> \./staging/src/(k8s.io/[a-z-]+)#=> \1 v0.$minor#" go.mod
package=k8s.io/component-base/version
flags="-s -w -X $package.gitVersion=v$version -X $package.gitMajor=1 -X $package.gitMinor=${minor%%.*} -X $package.gitTreeState=clean"
export GOFLAGS='-mod=mod -buildvcs=false -trimpath' CGO_ENABLED=0
for program in $missing; do
  go build -ldflags "$flags" -o "$bin/.$program" "./cmd/$program"
  mv "$bin/.$program" "$bin/$program" # only whole programs have their name
done
