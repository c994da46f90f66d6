#!/bin/sh
# cluster.sh DIR api | node | load IMAGE | down: a Kubernetes of one node on this machine, without systemd, Docker or
# registry, of the programs that build.sh put under DIR/bin.
#   api   starts an API server: it checks and stores objects, and answers what asks for them; nothing runs. Its state
#         starts empty. Prints the path of the kubeconfig file.
#   node  adds what runs pods: this machine is the node. Ready when this ends.
#   load  gives the node an image of podman's store, which it keeps; pods name it as podman does and have
#         imagePullPolicy Never.
#   down  stops what the others started, and nothing else.
# Needs root, and on Debian: etcd-server iproute2 openssl; for `node` also containerd runc containernetworking-plugins
# iptables conntrack gcc podman
# Everything listens on 10.250.0.1, which `api` adds to the loopback interface, or on 127.0.0.1: what other programs
# open on 10.250.0.1, pods can reach. There is no DNS and no network policy in it.
# The API server is ready in some 10 seconds, the node 2 seconds later; all of it takes about 1 GB of memory.
# Lines marked W are for machines without CAP_SYS_RESOURCE, or with control groups of version 1.
set -eu
address=10.250.0.1
node=node
mkdir -p "$1/state"
bin=$(cd "$1" && pwd)/bin
state=$(cd "$1/state" && pwd)
here=$(cd "$(dirname "$0")" && pwd)
export CONTAINERS_CONF="$here/containers.conf" KUBECONFIG="$state/admin.conf"
socket=$state/containerd/run/containerd.sock
kubectl() { "$bin/kubectl" --cache-dir "$state/cache" "$@"; }
containers() { ctr -a "$socket" -n k8s.io "$@"; }

# All are started in $state: a process that has got the number of one that is gone, or a zombie, does not look so.
is_alive() { [ "$(readlink "/proc/$1/cwd" 2>/dev/null)" = "$state" ]; }
start() {
  name=$1
  shift
  setsid "$@" >"$state/$name.log" 2>&1 </dev/null &
  echo $! >"$state/$name.pid"
}
stop() {
  [ -f "$state/$1.pid" ] || return 0
  pid=$(cat "$state/$1.pid")
  tries=0
  while is_alive "$pid"; do
    if [ $tries = 0 ]; then kill "$pid" || :; fi
    if [ $tries = 40 ]; then kill -9 "$pid" || :; fi
    tries=$((tries + 1))
    sleep 0.5
  done
  rm -f "$state/$1.pid"
}
until_ok() { # until_ok NAME TRIES COMMAND...
  name=$1 left=$2
  shift 2
  until "$@" >/dev/null 2>&1; do
    left=$((left - 1))
    [ $left -gt 0 ] || { echo "cluster.sh: $name did not start:" >&2; tail -n 5 "$state/$name.log" >&2; exit 1; }
    sleep 1
  done
}
require() {
  [ "$(id -u)" = 0 ] || { echo "cluster.sh: starting a cluster needs root" >&2; exit 1; }
  for program in "$@"; do
    command -v "$program" >/dev/null || { echo "cluster.sh: $program is missing" >&2; exit 1; }
  done
}

node_down() {
  [ -f "$state/containerd.pid" ] || return 0
  # Nothing makes new pods any more; the kubelet stops those that are there, and takes their networks down.
  for name in controllers scheduler; do stop $name; done
  if [ -f "$state/kubelet.pid" ]; then
    timeout 90 "$bin/kubectl" --cache-dir "$state/cache" delete pods -A --all --grace-period=1 >/dev/null 2>&1 || :
  fi
  for name in kubelet proxy; do stop $name; done
  # What the kubelet left: the containers that hold the networks of pods, and all where it was killed before.
  for each in $(containers task ls -q 2>/dev/null); do containers task kill -s KILL "$each" >/dev/null 2>&1 || :; done
  for each in $(containers container ls -q 2>/dev/null); do
    containers task rm -f "$each" >/dev/null 2>&1 || :
    containers container rm "$each" >/dev/null 2>&1 || :
  done
  stop containerd
  grep " $state/" /proc/mounts | cut -d' ' -f2 | sort -r | while read -r mount; do umount -l "$mount" || :; done
  for group in /sys/fs/cgroup/*/kubepods /sys/fs/cgroup/*/k8s.io /sys/fs/cgroup/kubepods; do
    [ -d "$group" ] && find "$group" -depth -type d -exec rmdir {} + || :
  done 2>/dev/null
  "$bin/kube-proxy" --cleanup >/dev/null 2>&1 || :
  for program in iptables ip6tables; do # the kubelet's own chains
    for chain in INPUT OUTPUT; do $program -D $chain -j KUBE-FIREWALL || :; done
    for option in F X; do $program -$option KUBE-FIREWALL || :; done
    for table in mangle nat filter; do $program -t $table -X KUBE-KUBELET-CANARY || :; done
    $program -t mangle -X KUBE-IPTABLES-HINT || :
  done 2>/dev/null
  for link in $(ip -br link show master kt0 2>/dev/null | cut -d@ -f1); do ip link del "$link" || :; done
  ip link del kt0 2>/dev/null || :
}

down() {
  node_down
  for name in apiserver etcd; do stop $name; done
  ip addr del $address/32 dev lo 2>/dev/null || :
}

api() {
  require etcd ip openssl
  down
  cd "$state"
  rm -rf etcd kubelet kubelet-pki certs ipam pods-log cni
  ip addr add $address/32 dev lo 2>/dev/null || :
  openssl genrsa -out sa.key 2048 2>/dev/null
  openssl rsa -in sa.key -pubout -out sa.pub 2>/dev/null
  # By its certificate of the authority that the kubelet trusts, the API server gets the logs of pods.
  openssl req -x509 -newkey rsa:2048 -nodes -keyout ca.key -out ca.crt -subj /CN=kubelet-clients -days 365 2>/dev/null
  openssl req -newkey rsa:2048 -nodes -keyout api.key -out api.csr -subj /O=system:masters/CN=apiserver 2>/dev/null
  openssl x509 -req -in api.csr -CA ca.crt -CAkey ca.key -CAcreateserial -out api.crt -days 365 2>/dev/null
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
    --service-account-issuer=https://kubernetes.default.svc --service-account-key-file=sa.pub --service-account-signing-key-file=sa.key \
    --kubelet-preferred-address-types=InternalIP --kubelet-client-certificate=api.crt --kubelet-client-key=api.key
  until_ok apiserver 180 kubectl get --raw /readyz
}

node() {
  require containerd ctr runc iptables conntrack gcc podman
  node_down
  cd "$state"
  sysctl -qw net.ipv4.ip_forward=1 net.bridge.bridge-nf-call-iptables=1 2>/dev/null || :
  start controllers "$bin/kube-controller-manager" --kubeconfig=admin.conf --service-account-private-key-file=sa.key \
    --root-ca-file=certs/apiserver.crt --use-service-account-credentials --leader-elect=false --bind-address=127.0.0.1
  start scheduler "$bin/kube-scheduler" --kubeconfig=admin.conf --leader-elect=false --bind-address=127.0.0.1

  mkdir -p cni containerd/root containerd/run pause
  cat >cni/10-bridge.conflist <<X
{"cniVersion": "0.4.0", "name": "bridge", "plugins": [
 {"type": "bridge", "bridge": "kt0", "isGateway": true, "ipMasq": true, "hairpinMode": true,
  "ipam": {"type": "host-local", "dataDir": "$state/ipam", "ranges": [[{"subnet": "10.244.0.0/16"}]], "routes": [{"dst": "0.0.0.0/0"}]}},
 {"type": "portmap", "capabilities": {"portMappings": true}}]}
X
  cat >containerd.toml <<X
version = 2
root = "$state/containerd/root"
state = "$state/containerd/run"
[grpc]
  address = "$socket"
[plugins."io.containerd.grpc.v1.cri"]
  sandbox_image = "localhost/pause:1"
  restrict_oom_score_adj = true # W
  disable_apparmor = true
  stream_server_address = "127.0.0.1"
  [plugins."io.containerd.grpc.v1.cri".cni]
    bin_dir = "/usr/lib/cni"
    conf_dir = "$state/cni"
  [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc]
    runtime_type = "io.containerd.runc.v2"
    [plugins."io.containerd.grpc.v1.cri".containerd.runtimes.runc.options]
      SystemdCgroup = false
X
  start containerd containerd -c containerd.toml
  until_ok containerd 30 ctr -a "$socket" version
  if ! has_image localhost/pause:1; then
    printf '#include <unistd.h>\n#include <signal.h>\nstatic void end(int s){_exit(0);}int main(){signal(15,end);signal(2,end);for(;;)pause();}\n' |
      gcc -static -O2 -xc - -o pause/pause
    tar -C pause -c pause | podman import -q -c 'ENTRYPOINT ["/pause"]' - localhost/pause:1 >/dev/null
    load localhost/pause:1
  fi
  cat >kubelet.yaml <<X
apiVersion: kubelet.config.k8s.io/v1beta1
kind: KubeletConfiguration
address: $address
authentication: {anonymous: {enabled: false}, webhook: {enabled: true}, x509: {clientCAFile: $state/ca.crt}}
authorization: {mode: Webhook}
cgroupDriver: cgroupfs
failCgroupV1: false # W
failSwapOn: false
oomScoreAdj: 0 # W
containerRuntimeEndpoint: unix://$socket
podLogsDir: $state/pods-log
clusterDNS: [$address]
clusterDomain: cluster.local
readOnlyPort: 0
healthzBindAddress: 127.0.0.1
imageGCHighThresholdPercent: 100
evictionHard: {memory.available: 100Mi, nodefs.available: 1%, imagefs.available: 1%}
X
  start kubelet "$bin/kubelet" --config=kubelet.yaml --kubeconfig=admin.conf --node-ip=$address --hostname-override=$node \
    --root-dir="$state/kubelet" --cert-dir="$state/kubelet-pki"
  cat >proxy.yaml <<X
apiVersion: kubeproxy.config.k8s.io/v1alpha1
kind: KubeProxyConfiguration
mode: iptables
clientConnection: {kubeconfig: admin.conf}
conntrack: {maxPerCore: 0, min: 0}
clusterCIDR: 10.244.0.0/16
metricsBindAddress: 127.0.0.1:10249
healthzBindAddress: 127.0.0.1:10256
hostnameOverride: $node
X
  start proxy "$bin/kube-proxy" --config=proxy.yaml
  until_ok kubelet 120 kubectl wait --for=condition=Ready "node/$node" --timeout=5s
}

has_image() { containers images ls -q | grep -qx "$1"; }
load() {
  mkdir -p "$state/loaded"
  mark=$state/loaded/$(echo "$1" | tr /: __)
  id=$(podman image inspect -f '{{.Id}}' "$1")
  if [ "$(cat "$mark" 2>/dev/null)" = "$id" ] && has_image "$1"; then return 0; fi
  # The image before keeps what both have in common: else it is collected as garbage while the new one is unpacked.
  if has_image "$1"; then containers images tag --force "$1" "$1-before" >/dev/null; fi
  podman save -q --format docker-archive "$1" | containers images import - >/dev/null
  containers images rm "$1-before" >/dev/null 2>&1 || :
  echo "$id" >"$mark"
}

case ${2:-} in
api) api && echo "$KUBECONFIG" ;;
node) node ;;
load) load "$3" ;;
down) down ;;
*) echo "cluster.sh DIR api | node | load IMAGE | down" >&2; exit 2 ;;
esac
