"""Makes the Parquet files of this folder: `python make.py`, with pyarrow 26.

`damaged/` is not made here: each file there is a sound one with a few bytes changed, which made
the reading library panic at another place.
"""

import datetime as dt
import json
import pathlib
import shutil

import pyarrow as pa
import pyarrow.parquet as pq

HERE = pathlib.Path(__file__).parent
TIMES = [
    dt.datetime(1, 1, 1),
    dt.datetime(1607, 5, 14, 1, 2, 3, 456789),
    None,
    dt.datetime(1969, 12, 31, 23, 59, 59, 999999),
    dt.datetime(2262, 4, 12),
    dt.datetime(9999, 12, 31, 23, 59, 59, 999999),
]
table = pa.table({"id": range(len(TIMES)), "decided": pa.array(TIMES, pa.timestamp("us"))})
pq.write_table(
    table,
    HERE / "int96.parquet",
    use_deprecated_int96_timestamps=True,
    store_schema=False,  # Spark leaves no Arrow schema, which says the unit
    row_group_size=2,
    write_page_index=True,
)
texts = pa.table({"id": range(100), "text": [f"text {i}" for i in range(100)]})
pq.write_table(
    texts,
    HERE / "checksums.parquet",
    write_page_checksum=True,
    compression="NONE",
    use_dictionary=False,
)

# As Spark writes a Delta table: the same times, partitioned, one file each.
delta = HERE.parent / "delta" / "int96"
shutil.rmtree(delta, ignore_errors=True)
(delta / "_delta_log").mkdir(parents=True)
fields = [("id", "long"), ("decided", "timestamp"), ("half", "string")]
schema = {
    "type": "struct",
    "fields": [{"name": n, "type": t, "nullable": True, "metadata": {}} for n, t in fields],
}
actions = [
    {"protocol": {"minReaderVersion": 1, "minWriterVersion": 2}},
    {
        "metaData": {
            "id": "00000000-0000-0000-0000-000000000096",
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps(schema),
            "partitionColumns": ["half"],
            "configuration": {},
            "createdTime": 1,
        }
    },
]
shown = [t and t.isoformat(timespec="milliseconds") + "Z" for t in TIMES]
for half, rows in [("a", slice(0, 3)), ("b", slice(3, 6))]:
    path = delta / f"half={half}" / "part-0.parquet"
    path.parent.mkdir()
    part = table.slice(rows.start, 3)
    pq.write_table(part, path, use_deprecated_int96_timestamps=True, store_schema=False)
    times = [t for t in shown[rows] if t]
    stats = {
        "numRecords": 3,
        "minValues": {"id": rows.start, "decided": min(times)},
        "maxValues": {"id": rows.stop - 1, "decided": max(times)},
        "nullCount": {"id": 0, "decided": 3 - len(times)},
    }
    actions.append(
        {
            "add": {
                "path": f"half={half}/part-0.parquet",
                "partitionValues": {"half": half},
                "size": path.stat().st_size,
                "modificationTime": 1,
                "dataChange": True,
                "stats": json.dumps(stats),
            }
        }
    )
log = delta / "_delta_log" / f"{0:020}.json"
log.write_text("".join(json.dumps(action) + "\n" for action in actions))
