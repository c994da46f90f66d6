#!/bin/bash
# job_server.sh DIR setup | start | stop: Beam's Spark job server with Spark 3.5 in the same process, on localhost:8098.
# `setup` fetches it from Maven Central, once: 270 MB. Needs a JDK 17 and Maven. It runs two tasks at a time.
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && dir=$(cd "$1" && pwd) || exit 1
port_is_open() { (echo > /dev/tcp/localhost/8098) 2>/dev/null; }
case $2 in
setup)
  [ -f "$dir/ready" ] && exit 0
  for program in java mvn; do
    command -v $program >/dev/null || { echo "job_server.sh: $program is missing; install a JDK 17 and Maven" >&2; exit 1; }
  done
  cp "$here/pom.xml" "$dir/" && cd "$dir" &&
    mvn -B -q dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=lib && touch ready
  ;;
start)
  port_is_open && { echo "job_server.sh: port 8098 is taken" >&2; exit 1; }
  opens=
  for package in lang lang.invoke lang.reflect io net nio util util.concurrent util.concurrent.atomic; do
    opens="$opens --add-opens=java.base/java.$package=ALL-UNNAMED"
  done
  for package in nio.ch nio.cs security.action util.calendar; do
    opens="$opens --add-opens=java.base/sun.$package=ALL-UNNAMED"
  done
  # shellcheck disable=SC2086
  nohup java -Xmx1500m $opens -cp "$dir/lib/*" org.apache.beam.runners.spark.SparkJobServerDriver \
    --job-host=localhost --job-port=8098 --artifact-port=0 --expansion-port=-1 \
    --spark-master-url='local[2]' --artifacts-dir="$dir/artifacts" > "$dir/log" 2>&1 &
  echo $! > "$dir/pid"
  for _ in $(seq 240); do
    port_is_open && exit 0
    kill -0 "$(cat "$dir/pid")" 2>/dev/null || break
    sleep 0.5
  done
  echo "job_server.sh: not up; see $dir/log" >&2
  exit 1
  ;;
stop)
  [ -f "$dir/pid" ] && kill "$(cat "$dir/pid")" 2>/dev/null
  for _ in $(seq 40); do port_is_open || break; sleep 0.5; done
  rm -f "$dir/pid"
  ;;
*)
  echo "job_server.sh DIR setup | start | stop" >&2
  exit 2
  ;;
esac
