"""Reads a table with arrow-odbc's Python package: `peer.py TABLE [max_text_size]`.

The connection string is in CASEBOOK_ODBC. Without a size, arrow-odbc takes the width that the
driver reports, which is its default.
"""

import os
import sys
import time

import arrow_odbc

table = sys.argv[1]
options = {"max_text_size": int(sys.argv[2])} if len(sys.argv) > 2 else {}
began = time.time()
rows = size = 0
try:
    reader = arrow_odbc.read_arrow_batches_from_odbc(
        query=f"SELECT * FROM {table}",
        connection_string=os.environ["CASEBOOK_ODBC"],
        batch_size=1024,
        **options,
    )
    for batch in reader:
        rows += batch.num_rows
        size += batch.nbytes
    outcome = "complete"
except Exception as error:  # the point of the long-text table
    outcome = "ERROR " + " ".join(str(error).split())[:200]
with open("/proc/self/status") as status:
    peak = next(line.split(":")[1].strip() for line in status if line.startswith("VmHWM"))
print(f"arrow-odbc: {rows} rows, {size} bytes, {time.time() - began:.2f} s, peak {peak}, {outcome}")
