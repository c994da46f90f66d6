#!/bin/sh
# setup.sh DIR PYTHON: puts a Flink 1.19.1 distribution and Beam's job server under DIR, once.
# Flink comes from PyPI, the job server from Maven Central: 400 MB to download, 1 GB on disk.
# Needs a JDK 17 and Maven; PYTHON has pip.
set -e
here=$(cd "$(dirname "$0")" && pwd)
mkdir -p "$1"
dir=$(cd "$1" && pwd)
python=$(cd "$(dirname "$2")" && pwd)/$(basename "$2")
[ -f "$dir/ready" ] && exit 0
for program in java mvn unzip; do
  command -v $program >/dev/null || { echo "setup.sh: $program is missing; install a JDK 17, Maven and unzip" >&2; exit 1; }
done
cd "$dir"
rm -rf flink jobserver pypi
# The jars, and apart from them bin/ and conf/; the source archive is not built.
"$python" -m pip download -q --no-deps --no-binary :all: --no-build-isolation -d pypi apache-flink-libraries==1.19.1
"$python" -m pip download -q --no-deps --only-binary :all: --python-version 3.10 -d pypi apache-flink==1.19.1
mkdir -p flink jobserver
tar xzf pypi/apache-flink-libraries-1.19.1.tar.gz
from=apache-flink-libraries-1.19.1
unzip -q -o pypi/apache_flink-1.19.1*.whl 'pyflink/bin/*' 'pyflink/conf/*'
# lib must be a folder, not a link: Flink's scripts do not follow one.
mv pyflink/bin pyflink/conf $from/deps/lib $from/deps/plugins flink/
cp $from/deps/bin/bash-java-utils.jar flink/bin/
rm -rf pyflink $from pypi
chmod +x flink/bin/*.sh flink/bin/flink
mkdir -p flink/log flink/pids
# The options of Java stay Flink's own; the rest is ours.
{ sed '/^jobmanager:/,$d' flink/conf/config.yaml; cat "$here/config.yaml"; } | grep -vE '^ *#' > flink/config
mv flink/config flink/conf/config.yaml
cp "$here/pom.xml" jobserver/
(cd jobserver && mvn -B -q dependency:copy-dependencies -DincludeScope=runtime -DoutputDirectory=lib)
# Beam's jars go into the cluster's lib, so that jobs need not carry them (LeanJobServer.java).
for jar in jobserver/lib/*.jar; do
  case $(basename "$jar") in flink-* | slf4j-* | log4j*) ;; *) ln -f "$jar" flink/lib/ ;; esac
done
cp "$here/LeanJobServer.java" .
echo none > empty.txt
"$python" -c "import zipfile; zipfile.ZipFile('empty.jar', 'w').write('empty.txt')"
touch ready
