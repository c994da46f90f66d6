#!/bin/bash
# cluster.sh DIR start N | add | stop: one Flink job manager, N task managers of one slot each, and Beam's job server.
# `add` starts one task manager more, in place of one that died.
# DIR was made by setup.sh. Ports: 8099 (job server), 8081 (Flink's page), 6123 (between the managers).
dir=$(cd "$1" && pwd) || exit 1
java=$(readlink -f "$(command -v java)")
export JAVA_HOME=${java%/bin/java} FLINK_HOME=$dir/flink FLINK_CONF_DIR=$dir/flink/conf FLINK_PID_DIR=$dir/flink/pids
port_is_open() { (echo > "/dev/tcp/localhost/$1") 2>/dev/null; }
case $2 in
start)
  for port in 8099 8081; do
    port_is_open $port && { echo "cluster.sh: port $port is taken; is a cluster running? (make flink-down)" >&2; exit 1; }
  done
  "$FLINK_HOME/bin/jobmanager.sh" start
  for _ in $(seq "$3"); do "$FLINK_HOME/bin/taskmanager.sh" start; done
  opens=
  for package in lang util util.concurrent nio net text time; do opens="$opens --add-opens=java.base/java.$package=ALL-UNNAMED"; done
  # shellcheck disable=SC2086
  nohup java -Xmx1g -Dorg.slf4j.simpleLogger.showDateTime=true $opens --add-opens=java.base/sun.nio.ch=ALL-UNNAMED \
    -Dlean.ship="$dir/empty.jar" -cp "$dir/jobserver/lib/*" "$dir/LeanJobServer.java" \
    --job-host=localhost --job-port=8099 --artifact-port=0 --expansion-port=-1 \
    --flink-master=localhost:8081 --artifacts-dir="$dir/artifacts" > "$dir/flink/log/jobserver.log" 2>&1 &
  echo $! > "$dir/flink/pids/jobserver.pid"
  for _ in $(seq 240); do
    curl -s localhost:8081/overview | grep -q "\"taskmanagers\":$3," && port_is_open 8099 && exit 0
    sleep 0.5
  done
  echo "cluster.sh: not up after 120 s; see $dir/flink/log" >&2
  exit 1
  ;;
add)
  "$FLINK_HOME/bin/taskmanager.sh" start
  for _ in $(seq 240); do
    curl -s localhost:8081/overview | grep -q '"slots-available":[3-9]' && exit 0
    sleep 0.5
  done
  ;;
stop)
  for file in "$dir"/flink/pids/*.pid; do
    [ -f "$file" ] && while read -r process; do kill "$process" 2>/dev/null; done < "$file"
  done
  for _ in $(seq 40); do port_is_open 8081 || port_is_open 8099 || break; sleep 0.5; done
  rm -f "$dir"/flink/pids/*
  ;;
*)
  echo "cluster.sh DIR start N | add | stop" >&2
  exit 2
  ;;
esac
