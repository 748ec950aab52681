#!/usr/bin/env bash
# The SQLite ODBC driver for the tests: `sqlite.sh start` installs it if it is missing and prints
# the variable that the tests read. There is no server: each test makes a file of its own.
set -euo pipefail

case ${1:-} in
start)
    if ! odbcinst -q -d 2>/dev/null | grep -q 'SQLite3'; then
        sudo=''
        [ "$(id -u)" = 0 ] || sudo='sudo -n'
        $sudo apt-get update -q >&2
        DEBIAN_FRONTEND=noninteractive $sudo apt-get install -q -y libsqliteodbc unixodbc-dev odbcinst >&2
    fi
    echo "export CASEBOOK_TEST_ODBC_SQLITE='SQLite3'"
    ;;
stop) ;;
*)
    echo "usage: $0 start|stop" >&2
    exit 2
    ;;
esac
