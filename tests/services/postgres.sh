#!/usr/bin/env bash
# A PostgreSQL server of our own for the ODBC tests: `postgres.sh start` prints the variables that
# the tests read, `postgres.sh stop` ends the server. Needs Debian's packages, which `start`
# installs if it may.
set -euo pipefail

port=${CASEBOOK_POSTGRES_PORT:-21100}
password=casebook-test-password
if [ "$(id -u)" = 0 ]; then
    # PostgreSQL refuses to run as root, and its user cannot look into root's home.
    state=${CASEBOOK_SERVICES:-/var/lib/casebook-services}/postgres
else
    state=${CASEBOOK_SERVICES:-$HOME/.cache/casebook-services}/postgres
fi

as_owner() {
    if [ "$(id -u)" = 0 ]; then
        (cd / && runuser -u postgres -- "$@")
    else
        "$@"
    fi
}

install_missing() {
    if ! compgen -G '/usr/lib/postgresql/*/bin/initdb' >/dev/null || ! odbcinst -q -d 2>/dev/null | grep -q 'PostgreSQL Unicode'; then
        local sudo=''
        [ "$(id -u)" = 0 ] || sudo='sudo -n'
        $sudo apt-get update -q
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y postgresql odbc-postgresql unixodbc-dev odbcinst
    fi
}

start() {
    install_missing
    local bin
    bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1)
    mkdir -p "$state"
    if [ "$(id -u)" = 0 ]; then
        chown postgres "$state"
    fi
    if [ ! -f "$state/data/PG_VERSION" ]; then
        printf '%s' "$password" >"$state/password"
        chmod a+r "$state/password"
        as_owner "$bin/initdb" --pgdata "$state/data" --username casebook --encoding UTF8 \
            --locale C.UTF-8 --auth-host scram-sha-256 --auth-local trust --pwfile "$state/password"
    fi
    if ! as_owner "$bin/pg_ctl" --pgdata "$state/data" status >/dev/null; then
        # Nothing in it outlives the tests, so it need not survive a power cut.
        as_owner "$bin/pg_ctl" --pgdata "$state/data" --log "$state/log" --wait start --options \
            "-c listen_addresses=127.0.0.1 -c port=$port -c unix_socket_directories=$state -c fsync=off"
    fi
}

stop() {
    local bin
    bin=$(compgen -G '/usr/lib/postgresql/*/bin' | sort -V | tail -n 1) || return 0
    if [ -f "$state/data/postmaster.pid" ]; then
        as_owner "$bin/pg_ctl" --pgdata "$state/data" --mode fast --wait stop
    fi
}

case ${1:-} in
start)
    start >&2
    echo "export CASEBOOK_TEST_ODBC_POSTGRES='Driver={PostgreSQL Unicode};Server=127.0.0.1;Port=$port;Database=postgres;Uid=casebook;Pwd=$password;'"
    ;;
stop) stop >&2 ;;
*)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac
