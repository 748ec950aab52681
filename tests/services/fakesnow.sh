#!/usr/bin/env bash
# Starts or stops fakesnow, an emulator of Snowflake on DuckDB, for the tests.
#   eval "$(tests/services/fakesnow.sh start)"   prints the exports and nothing else
#   tests/services/fakesnow.sh stop
# State under $CASEBOOK_SERVICES (default ~/.cache/casebook-services); port $CASEBOOK_FAKESNOW_PORT.
set -euo pipefail
state="${CASEBOOK_SERVICES:-$HOME/.cache/casebook-services}/fakesnow"
port="${CASEBOOK_FAKESNOW_PORT:-21010}"
url="http://127.0.0.1:$port"
mkdir -p "$state"

running() {
    [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null
}

# A login is the only request that a server without tables answers.
ready() {
    python3 - "$url" <<'PY' 2>/dev/null
import json, sys, urllib.request
body = json.dumps({"data": {"SESSION_PARAMETERS": {}}}).encode()
request = urllib.request.Request(sys.argv[1] + "/session/v1/login-request", body)
assert json.load(urllib.request.urlopen(request, timeout=5))["success"]
PY
}

stop() {
    if running; then
        kill -INT "$(cat "$state/pid")" 2>/dev/null || true
        for _ in $(seq 50); do running || break; sleep 0.1; done
        if running; then kill -KILL "$(cat "$state/pid")" 2>/dev/null || true; fi
    fi
    rm -f "$state/pid"
}

install() {
    if ! command -v python3 >/dev/null || ! python3 -m venv --help >/dev/null 2>&1; then
        apt-get update -q && apt-get install -y -q python3 python3-venv
    fi
    # The test of the directory is whether the program in it starts: a venv cannot be moved.
    if ! "$state/venv/bin/fakesnow" --help >/dev/null 2>&1; then
        rm -rf "$state/venv"
        python3 -m venv "$state/venv" || {
            apt-get update -q && apt-get install -y -q python3-venv && python3 -m venv "$state/venv"
        }
        # From version 5 on the connector lacks a module that fakesnow imports.
        "$state/venv/bin/pip" install --quiet --disable-pip-version-check \
            'fakesnow[server]==0.12.1' 'snowflake-connector-python<5'
    fi
}

case "${1:-}" in
start)
    {
        if ! { running && ready; }; then
            stop
            install
            nohup "$state/venv/bin/fakesnow" -s -p "$port" --host 127.0.0.1 \
                >"$state/log" 2>&1 </dev/null &
            echo $! >"$state/pid"
            for _ in $(seq 300); do
                if ready; then break; fi
                running || { tail -n 20 "$state/log"; exit 1; }
                sleep 0.1
            done
            ready
        fi
    } >&2
    echo "export CASEBOOK_TEST_SNOWFLAKE=$url"
    ;;
stop)
    stop
    ;;
*)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac
