#!/usr/bin/env bash
# An S3 server for the tests (moto, from PyPI): `s3.sh start` prints the variable that the tests
# read, `s3.sh stop` ends the server. It accepts any keys; buckets are made by the tests.
set -euo pipefail

port=${CASEBOOK_S3_PORT:-21210}
state=${CASEBOOK_SERVICES:-$HOME/.cache/casebook-services}/s3
moto_version=5.2.5

# moto looks whether an object is there and writes it in two steps, between which another thread may
# write it. S3 does not; so one request is answered at a time.
server='
import sys, threading
from moto import server as moto
from werkzeug.serving import run_simple

backend = moto.DomainDispatcherApplication(moto.create_backend_app)
turn = threading.Lock()

def application(environ, start_response):
    with turn:
        return backend(environ, start_response)

handler = moto.MotoRequestHandler
run_simple("127.0.0.1", int(sys.argv[1]), application, threaded=True, request_handler=handler)
'

answers() {
    # Any HTTP answer will do.
    python3 - "$port" <<'PYTHON' 2>/dev/null
import http.client, sys
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=2)
connection.request("GET", "/moto-api/")
connection.getresponse()
PYTHON
}

running() {
    [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null
}

install_missing() {
    if ! python3 -c 'import venv, ensurepip' 2>/dev/null; then
        local sudo=''
        [ "$(id -u)" = 0 ] || sudo='sudo -n'
        $sudo apt-get update -q
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y python3 python3-venv
    fi
    if [ ! -x "$state/venv/bin/moto_server" ]; then
        python3 -m venv "$state/venv"
        "$state/venv/bin/pip" install --quiet --disable-pip-version-check "moto[server]==$moto_version"
    fi
}

start() {
    mkdir -p "$state"
    install_missing
    if ! running; then
        nohup "$state/venv/bin/python" -c "$server" "$port" >"$state/log" 2>&1 &
        echo $! >"$state/pid"
    fi
    for _ in $(seq 150); do
        if answers; then return; fi
        if ! running; then break; fi
        sleep 0.2
    done
    echo "moto does not answer on port $port:" >&2
    tail -n 20 "$state/log" >&2
    exit 1
}

case ${1:-} in
start)
    start >&2
    echo "export CASEBOOK_TEST_S3=http://127.0.0.1:$port"
    ;;
stop)
    if running; then kill "$(cat "$state/pid")"; fi
    rm -f "$state/pid"
    ;;
*)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac
