#!/bin/bash
# job_server.sh DIR setup | start [N] | stop: Beam's Spark job server on localhost:8098.
# `start`: with Spark 3.5 in the same process, two tasks at a time. `start N`: with a Spark master on localhost:7077
# and N workers of one core each, as processes of their own.
# `setup` fetches it from Maven Central, once: 270 MB. Needs a JDK 17 and Maven.
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1" && dir=$(cd "$1" && pwd) || exit 1
port_is_open() { (echo > "/dev/tcp/localhost/$1") 2>/dev/null; }
wait_for() { # PORT LOG: the process that was started last, whose id is the last in pids
  for _ in $(seq 240); do
    port_is_open "$1" && return
    kill -0 "$(tail -1 "$dir/pids")" 2>/dev/null || break
    sleep 0.5
  done
  echo "job_server.sh: not up; see $2" >&2
  exit 1
}
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
  for port in 8098 ${3:+7077}; do
    port_is_open $port && { echo "job_server.sh: port $port is taken" >&2; exit 1; }
  done
  opens=
  for package in lang lang.invoke lang.reflect io net nio util util.concurrent util.concurrent.atomic; do
    opens="$opens --add-opens=java.base/java.$package=ALL-UNNAMED"
  done
  for package in nio.ch nio.cs security.action util.calendar; do
    opens="$opens --add-opens=java.base/sun.$package=ALL-UNNAMED"
  done
  : > "$dir/pids"
  master='local[2]'
  if [ -n "$3" ]; then
    # A worker starts its executors with the jars below $SPARK_HOME/jars: Spark's, and Beam's, which a job needs not carry.
    export SPARK_HOME=$dir SPARK_SCALA_VERSION=2.12 SPARK_LOCAL_IP=127.0.0.1
    ln -sfn lib "$dir/jars"
    master=spark://localhost:7077
    # shellcheck disable=SC2086
    nohup java -Xmx512m $opens -cp "$dir/lib/*" org.apache.spark.deploy.master.Master \
      --host localhost --port 7077 --webui-port 0 > "$dir/master.log" 2>&1 &
    echo $! >> "$dir/pids"
    wait_for 7077 "$dir/master.log"
    for number in $(seq "$3"); do
      # shellcheck disable=SC2086
      nohup java -Xmx512m $opens -cp "$dir/lib/*" org.apache.spark.deploy.worker.Worker $master \
        --cores 1 --memory 1500m --webui-port 0 --work-dir "$dir/work" > "$dir/worker$number.log" 2>&1 &
      echo $! >> "$dir/pids"
    done
  fi
  # shellcheck disable=SC2086
  nohup java -Xmx1500m $opens -Dspark.executor.memory=1200m -cp "$dir/lib/*" \
    org.apache.beam.runners.spark.SparkJobServerDriver \
    --job-host=localhost --job-port=8098 --artifact-port=0 --expansion-port=-1 \
    --spark-master-url="$master" --artifacts-dir="$dir/artifacts" > "$dir/log" 2>&1 &
  echo $! >> "$dir/pids"
  wait_for 8098 "$dir/log"
  ;;
stop)
  [ -f "$dir/pids" ] && while read -r process; do kill "$process" 2>/dev/null; done < "$dir/pids"
  for _ in $(seq 40); do port_is_open 8098 || port_is_open 7077 || break; sleep 0.5; done
  rm -f "$dir/pids"
  ;;
*)
  echo "job_server.sh DIR setup | start [N] | stop" >&2
  exit 2
  ;;
esac
