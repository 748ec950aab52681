#!/usr/bin/env bash
# An Azure Blob Storage server for the tests (Azurite, from npm): `azure.sh start` prints the
# variable that the tests read and makes the container casebook-test, `azure.sh stop` ends the
# server. Account and key are the emulator's public ones.
set -euo pipefail

port=${CASEBOOK_AZURE_PORT:-21450}
state=${CASEBOOK_SERVICES:-$HOME/.cache/casebook-services}/azure
azurite_version=3.37.0

running() {
    [ -f "$state/pid" ] && kill -0 "$(cat "$state/pid")" 2>/dev/null
}

# Makes the container; fails while the server does not answer. 409: it is there.
make_container() {
    python3 - "$port" <<'PYTHON' 2>/dev/null
import base64, email.utils, hashlib, hmac, http.client, sys

account = "devstoreaccount1"
key = "Eby8vdM02xNOcqFlqUwJPLlmEtlCDXJ1OUzFT50uSRZ6IFsuFq2UVErCz4I6tq/K1SZFPTOtr/KBHBeksoGMGw=="
date = email.utils.formatdate(usegmt=True)
text = (
    "PUT" + "\n" * 12 + f"x-ms-date:{date}\nx-ms-version:2021-08-06\n"
    f"/{account}/{account}/casebook-test\nrestype:container"
)
mac = hmac.new(base64.b64decode(key), text.encode(), hashlib.sha256).digest()
connection = http.client.HTTPConnection("127.0.0.1", int(sys.argv[1]), timeout=5)
headers = {
    "x-ms-date": date,
    "x-ms-version": "2021-08-06",
    "Content-Length": "0",
    "Authorization": f"SharedKey {account}:{base64.b64encode(mac).decode()}",
}
connection.request("PUT", f"/{account}/casebook-test?restype=container", headers=headers)
sys.exit(0 if connection.getresponse().status in (201, 409) else 1)
PYTHON
}

install_missing() {
    if ! command -v npm >/dev/null || ! command -v python3 >/dev/null; then
        local sudo=''
        [ "$(id -u)" = 0 ] || sudo='sudo -n'
        $sudo apt-get update -q
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y nodejs npm python3
    fi
    if [ ! -x "$state/node_modules/.bin/azurite-blob" ]; then
        npm install --silent --no-fund --no-audit --prefix "$state" "azurite@$azurite_version"
    fi
}

start() {
    mkdir -p "$state"
    install_missing
    if ! running; then
        nohup "$state/node_modules/.bin/azurite-blob" --blobHost 127.0.0.1 --blobPort "$port" \
            --inMemoryPersistence --disableTelemetry --skipApiVersionCheck \
            >"$state/log" 2>&1 &
        echo $! >"$state/pid"
    fi
    for _ in $(seq 150); do
        if make_container; then return; fi
        if ! running; then break; fi
        sleep 0.2
    done
    echo "Azurite does not answer on port $port:" >&2
    tail -n 20 "$state/log" >&2
    exit 1
}

case ${1:-} in
start)
    start >&2
    echo "export CASEBOOK_TEST_AZURE=http://127.0.0.1:$port"
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
