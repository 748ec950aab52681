#!/usr/bin/env bash
# ODBC from PostgreSQL beside arrow-odbc's Python package, on the same tables, one after the other.
# Needs tests/services/postgres.sh, psql, and `pip install arrow-odbc pyarrow` in $PYTHON.
# PROFILE=release is what the table in README.md was made with, unless it says otherwise. BEFORE names
# the same example built from an older commit, which then takes its turn too.
set -euo pipefail
cd "$(dirname "$0")/../.."

eval "$(tests/services/postgres.sh start)"
attribute() { sed -E "s/.*$1=([^;]*);.*/\1/" <<<"$CASEBOOK_TEST_ODBC_POSTGRES"; }
PGPASSWORD=$(attribute Pwd) psql --quiet --host 127.0.0.1 --port "$(attribute Port)" \
    --username casebook postgres --file benches/odbc/prepare.sql
profile=${PROFILE:-release}
cargo build --quiet --profile "${profile}" -p casebook-connectors --features odbc --example read
built=$([ "$profile" = dev ] && echo debug || echo "$profile")
ours=${CARGO_TARGET_DIR:-target}/$built/examples/read
bounded='UseDeclareFetch=1;Fetch=32;'
for round in $(seq "${ROUNDS:-3}"); do
    ${BEFORE:+"$BEFORE" ODBC bench.docs "odbc.connection_string=$CASEBOOK_TEST_ODBC_POSTGRES"}
    "$ours" ODBC bench.docs "odbc.connection_string=$CASEBOOK_TEST_ODBC_POSTGRES"
    CASEBOOK_ODBC=$CASEBOOK_TEST_ODBC_POSTGRES "${PYTHON:-python3}" benches/odbc/peer.py bench.docs
    CASEBOOK_ODBC=$CASEBOOK_TEST_ODBC_POSTGRES$bounded "${PYTHON:-python3}" benches/odbc/peer.py bench.docs
done
echo 'the table with long texts: ours, arrow-odbc by default, arrow-odbc with room for the longest'
"$ours" ODBC bench.long "odbc.connection_string=$CASEBOOK_TEST_ODBC_POSTGRES"
CASEBOOK_ODBC=$CASEBOOK_TEST_ODBC_POSTGRES "${PYTHON:-python3}" benches/odbc/peer.py bench.long
CASEBOOK_ODBC="$CASEBOOK_TEST_ODBC_POSTGRES;MaxLongVarcharSize=-4" "${PYTHON:-python3}" benches/odbc/peer.py bench.long 6000000
