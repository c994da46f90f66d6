#!/bin/sh
# api_server.sh DIR up | down: an API server of Kubernetes on this machine, without nodes: it checks and stores objects,
# and answers what asks for them; nothing runs.
#   up    starts it from the programs that build.sh put under DIR/bin; ready when this ends. Its state starts empty.
#         Prints the path of the kubeconfig file.
#   down  ends what `up` started, and nothing else.
# Needs root, and on Debian: etcd-server iproute2 openssl
# It listens on 10.250.0.1, which `up` adds to the loopback interface: an address that endpoints may have.
set -eu
address=10.250.0.1
mkdir -p "$1/state"
bin=$(cd "$1" && pwd)/bin
state=$(cd "$1/state" && pwd)
export KUBECONFIG="$state/admin.conf"

is_alive() { grep -qs '^State:[[:space:]]*[^Z]' "/proc/$1/status"; } # a zombie is not
start() {
  name=$1
  shift
  setsid "$@" >"$state/$name.log" 2>&1 </dev/null &
  echo $! >"$state/$name.pid"
}
stop() {
  [ -f "$state/$1.pid" ] || return 0
  pid=$(cat "$state/$1.pid")
  kill "$pid" 2>/dev/null || :
  tries=0
  while is_alive "$pid"; do
    tries=$((tries + 1))
    [ $tries -lt 40 ] || kill -9 "$pid"
    sleep 0.5
  done
  rm -f "$state/$1.pid"
}

down() {
  for name in apiserver etcd; do stop $name; done
  ip addr del $address/32 dev lo 2>/dev/null || :
}

up() {
  [ "$(id -u)" = 0 ] || { echo "api_server.sh: adding an address needs root" >&2; exit 1; }
  for program in etcd ip openssl; do
    command -v $program >/dev/null || { echo "api_server.sh: $program is missing" >&2; exit 1; }
  done
  down
  cd "$state"
  rm -rf etcd certs
  ip addr add $address/32 dev lo 2>/dev/null || :
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  token=$(openssl rand -hex 16)
  (umask 077 && printf '%s,admin,1,system:masters\n' "$token" >tokens.csv)
  (umask 077 && cat >admin.conf) <<X
apiVersion: v1
kind: Config
clusters: [{name: local, cluster: {server: 'https://$address:6443', insecure-skip-tls-verify: true}}]
users: [{name: admin, user: {token: $token}}]
contexts: [{name: local, context: {cluster: local, user: admin}}]
current-context: local
X
  start etcd etcd --data-dir "$state/etcd" --unsafe-no-fsync \
    --listen-client-urls http://127.0.0.1:23790 --advertise-client-urls http://127.0.0.1:23790 --listen-peer-urls http://127.0.0.1:23800
  # Debian's etcd 3.4 reports no progress of watches, without which clients that stream lists loop for ever.
  start apiserver "$bin/kube-apiserver" --etcd-servers=http://127.0.0.1:23790 --feature-gates=WatchList=false \
    --bind-address=$address --advertise-address=$address --secure-port=6443 --cert-dir="$state/certs" \
    --service-cluster-ip-range=10.96.0.0/16 --authorization-mode=Node,RBAC --token-auth-file="$state/tokens.csv" \
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key
  tries=0
  until "$bin/kubectl" get --raw /readyz >/dev/null 2>&1; do
    tries=$((tries + 1))
    [ $tries -lt 180 ] || { echo "api_server.sh: it did not start:" >&2; tail -5 "$state/apiserver.log" >&2; exit 1; }
    sleep 1
  done
  echo "$KUBECONFIG"
}

case ${2:-} in
up) up ;;
down) down ;;
*) echo "api_server.sh DIR up | down" >&2; exit 2 ;;
esac
