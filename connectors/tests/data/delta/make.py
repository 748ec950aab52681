"""Makes the golden Delta tables beside this file, byte for byte the same each time but for
`by_deltalake`, whose file names are random.

    pip install deltalake pyarrow pyroaring
    python make.py            # all but by_deltalake
    python make.py all

The Parquet files are pyarrow's; the logs are written here by hand, after the Delta protocol
(https://github.com/delta-io/delta/blob/master/PROTOCOL.md). Section names below are of that text.
"""

import datetime
import json
import shutil
import struct
import sys
import uuid
import zlib
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from pyroaring import BitMap

HERE = Path(__file__).parent
MADE = 1_760_000_000_000  # milliseconds; every time in the logs
Z85 = "0123456789abcdefghijklmnopqrstuvwxyzABCDEFGHIJKLMNOPQRSTUVWXYZ.-:+=^!/*?&<>()[]{}@%$#"


def z85(data):
    """Base85 as the section Deletion Vector Format asks for."""
    data += b"\0" * (-len(data) % 4)
    out = ""
    for at in range(0, len(data), 4):
        number = int.from_bytes(data[at : at + 4], "big")
        out += "".join(Z85[number // 85**power % 85] for power in (4, 3, 2, 1, 0))
    return out


def bitmap(rows):
    """RoaringBitmapArray: magic, number of 32-bit bitmaps, then key and bitmap of each."""
    return struct.pack("<IQI", 1681511377, 1, 0) + BitMap(rows).serialize()


def field(name, kind, nullable=True, **metadata):
    return {"name": name, "type": kind, "nullable": nullable, "metadata": metadata}


ID_NAME = [field("id", "long"), field("name", "string")]


def protocol(reader=(), writer=()):
    features = {"minReaderVersion": 3, "minWriterVersion": 7}
    if reader:
        features["readerFeatures"] = list(reader)
    else:
        features["minReaderVersion"] = 1
    features["writerFeatures"] = sorted({*reader, *writer})
    return {"protocol": features}


def metadata(table, fields, partition_by=(), **configuration):
    settings = {f"delta.{key.replace('__', '.')}": value for key, value in configuration.items()}
    return {
        "metaData": {
            "id": str(uuid.uuid5(uuid.NAMESPACE_URL, table)),
            "format": {"provider": "parquet", "options": {}},
            "schemaString": json.dumps({"type": "struct", "fields": fields}),
            "partitionColumns": list(partition_by),
            "configuration": settings,
            "createdTime": MADE,
        }
    }


def add(directory, name, table, deletion_vector=None, partition=None, stats=True, **more):
    """Writes the Parquet file `name` and returns its add action."""
    path = directory / name
    path.parent.mkdir(parents=True, exist_ok=True)
    pq.write_table(table, path, compression="snappy")
    action = {
        "path": name,
        "partitionValues": partition or {},
        "size": path.stat().st_size,
        "modificationTime": MADE,
        "dataChange": True,
        **more,
    }
    if stats:
        action["stats"] = json.dumps({"numRecords": table.num_rows})
    if deletion_vector:
        action["deletionVector"] = deletion_vector
    return {"add": action}


def start(name):
    directory = HERE / name
    shutil.rmtree(directory, ignore_errors=True)
    (directory / "_delta_log").mkdir(parents=True)
    return directory


def commit(directory, version, *actions):
    info = {"commitInfo": {"timestamp": MADE + version, "operation": "WRITE"}}
    lines = "".join(json.dumps(action) + "\n" for action in (info, *actions))
    (directory / "_delta_log" / f"{version:020}.json").write_text(lines)


def rows(first, last):
    ids = list(range(first, last))
    return pa.table({"id": pa.array(ids, pa.int64()), "name": [f"name {i}" for i in ids]})


def deletion_vectors():
    """Four files: a vector in the log, two in one file at different offsets, none."""
    directory = start("deletion_vectors")
    kept = uuid.uuid5(uuid.NAMESPACE_URL, "deletion_vectors")
    content, offsets = b"\1", []  # the first byte is the version of the file
    for deleted in ([0, 9], [4]):
        data = bitmap(deleted)
        offsets.append((len(content), len(data), len(deleted)))
        content += struct.pack(">I", len(data)) + data + struct.pack(">I", zlib.crc32(data))
    (directory / f"deletion_vector_{kept}.bin").write_bytes(content)

    def in_file(offset, size, count):
        return {
            "storageType": "u",
            "pathOrInlineDv": z85(kept.bytes),
            "offset": offset,
            "sizeInBytes": size,
            "cardinality": count,
        }

    inline = bitmap([1, 3])
    in_log = {
        "storageType": "i",
        "pathOrInlineDv": z85(inline),
        "sizeInBytes": len(inline),
        "cardinality": 2,
    }
    commit(
        directory,
        0,
        protocol(["deletionVectors"]),
        metadata("deletion_vectors", ID_NAME, enableDeletionVectors="true"),
        add(directory, "part-0.parquet", rows(0, 10), in_log),
        add(directory, "part-1.parquet", rows(10, 20), in_file(*offsets[0])),
        add(directory, "part-2.parquet", rows(20, 30)),
        add(directory, "part-3.parquet", rows(30, 35), in_file(*offsets[1])),
    )


def column_mapping(mode, name, first="col-1", second="col-2"):
    """Logical names with spaces over physical ones; partitioned by a mapped column."""
    directory = start(name)

    def mapped(logical, kind, number):
        return field(
            logical,
            kind,
            **{
                "delta.columnMapping.id": number,
                "delta.columnMapping.physicalName": f"col-{number}",
            },
        )

    fields = [
        mapped("case id", "long", 1),
        mapped("Text, whole", "string", 2),
        mapped("court", "string", 3),
    ]

    def file(ids, texts):
        columns = [
            pa.field(first, pa.int64(), metadata={"PARQUET:field_id": "1"}),
            pa.field(second, pa.string(), metadata={"PARQUET:field_id": "2"}),
        ]
        return pa.table([ids, texts], schema=pa.schema(columns))

    commit(
        directory,
        0,
        protocol(["columnMapping"]),
        metadata(
            name, fields, ["court"], columnMapping__mode=mode, columnMapping__maxColumnId="3"
        ),
        add(directory, "aa/part-0.parquet", file([1, 2], ["one", None]), partition={"col-3": "1st"}),
        add(directory, "bb/part-1.parquet", file([3], ["three"]), partition={"col-3": None}),
    )


def v2_checkpoint():
    """Versions 0 to 2 are in a checkpoint with two sidecars only; 3 is a commit."""
    directory = start("v2_checkpoint")
    log = directory / "_delta_log"
    (log / "_sidecars").mkdir()
    proto = protocol(["v2Checkpoint"])
    meta = metadata("v2_checkpoint", ID_NAME, checkpointPolicy="v2")
    text_map = pa.map_(pa.string(), pa.string())
    adds = pa.struct(
        [
            ("path", pa.string()),
            ("partitionValues", text_map),
            ("size", pa.int64()),
            ("modificationTime", pa.int64()),
            ("dataChange", pa.bool_()),
            ("stats", pa.string()),
        ]
    )
    sidecars = []
    for part in (0, 1):
        action = add(directory, f"part-{part}.parquet", rows(10 * part, 10 * part + 3))["add"]
        action["partitionValues"] = []
        action["dataChange"] = False
        sidecar = f"{uuid.uuid5(uuid.NAMESPACE_URL, f'sidecar {part}')}.parquet"
        path = log / "_sidecars" / sidecar
        pq.write_table(pa.table({"add": pa.array([action], adds)}), path)
        sidecars.append(
            {
                "sidecar": {
                    "path": sidecar,
                    "sizeInBytes": path.stat().st_size,
                    "modificationTime": MADE,
                }
            }
        )
    recorded = {"txn": {"appId": "loader", "version": 41, "lastUpdated": MADE}}
    actions = [{"checkpointMetadata": {"version": 2}}, proto, meta, recorded, *sidecars]
    lines = "".join(json.dumps(action) + "\n" for action in actions)
    checkpoint = f"{2:020}.checkpoint.{uuid.uuid5(uuid.NAMESPACE_URL, 'v2')}.json"
    (log / checkpoint).write_text(lines)
    hint = {"version": 2, "size": len(actions), "sizeInBytes": len(lines), "numOfAddFiles": 2}
    (log / "_last_checkpoint").write_text(json.dumps(hint))
    commit(directory, 3, add(directory, "part-3.parquet", rows(20, 21)))


def timestamp_ntz():
    """A wall-clock time and a moment, microseconds kept."""
    directory = start("timestamp_ntz")
    time = datetime.datetime(2024, 2, 29, 23, 59, 59, 999999)
    moment = time.replace(tzinfo=datetime.timezone.utc)
    table = pa.table(
        {
            "id": pa.array([1, 2], pa.int64()),
            "wall": pa.array([time, None], pa.timestamp("us")),
            "moment": pa.array([moment, moment], pa.timestamp("us", "UTC")),
        }
    )
    fields = [field("id", "long"), field("wall", "timestamp_ntz"), field("moment", "timestamp")]
    commit(
        directory,
        0,
        protocol(["timestampNtz"]),
        metadata("timestamp_ntz", fields),
        add(directory, "part-0.parquet", table),
    )


def type_widening():
    """Cannot be read: column id was an int once."""
    directory = start("type_widening")
    change = {"toType": "long", "fromType": "integer"}
    fields = [field("id", "long", **{"delta.typeChanges": [change]}), field("name", "string")]
    commit(
        directory,
        0,
        protocol(["typeWidening"]),
        metadata("type_widening", fields, enableTypeWidening="true"),
        add(directory, "part-0.parquet", rows(0, 1)),
    )


def catalog_managed():
    """Cannot be read: which commits count is known to the catalog only."""
    directory = start("catalog_managed")
    commit(
        directory,
        0,
        protocol(["catalogManaged"], ["inCommitTimestamp"]),
        metadata("catalog_managed", ID_NAME, enableInCommitTimestamps="true"),
        add(directory, "part-0.parquet", rows(0, 1)),
    )


def read_only():
    """Tables that can be read but not written to, one per feature."""
    clustered = {"clusteringColumns": [["id"]]}
    domain = {
        "domainMetadata": {
            "domain": "delta.clustering",
            "configuration": json.dumps(clustered),
            "removed": False,
        }
    }
    row_ids = {
        "domainMetadata": {
            "domain": "delta.rowTracking",
            "configuration": json.dumps({"rowIdHighWaterMark": 1}),
            "removed": False,
        }
    }
    numbered = field(
        "id",
        "long",
        **{
            "delta.identity.start": 0,
            "delta.identity.step": 1,
            "delta.identity.highWaterMark": 1,
            "delta.identity.allowExplicitInsert": True,
        },
    )
    defaulted = field("name", "string", CURRENT_DEFAULT="'none'")
    made = {
        "clustering": (["clustering", "domainMetadata"], ID_NAME, {}, [domain], {}),
        "row_tracking": (
            ["rowTracking", "domainMetadata"],
            ID_NAME,
            {
                "enableRowTracking": "true",
                "rowTracking__materializedRowIdColumnName": "_row-id",
                "rowTracking__materializedRowCommitVersionColumnName": "_row-version",
            },
            [row_ids],
            {"baseRowId": 0, "defaultRowCommitVersion": 0},
        ),
        "identity_columns": (["identityColumns"], [numbered, ID_NAME[1]], {}, [], {}),
        "column_defaults": (["allowColumnDefaults"], [ID_NAME[0], defaulted], {}, [], {}),
    }
    for name, (features, fields, settings, actions, more) in made.items():
        directory = start(name)
        commit(
            directory,
            0,
            protocol(writer=features),
            metadata(name, fields, **settings),
            *actions,
            add(directory, "part-0.parquet", rows(0, 2), **more),
        )
    directory = start("in_commit_timestamp")
    info = {
        "commitInfo": {"inCommitTimestamp": MADE, "timestamp": MADE, "operation": "WRITE"}
    }
    actions = [
        info,
        protocol(writer=["inCommitTimestamp"]),
        metadata("in_commit_timestamp", ID_NAME, enableInCommitTimestamps="true"),
        add(directory, "part-0.parquet", rows(0, 2)),
    ]
    lines = "".join(json.dumps(action) + "\n" for action in actions)
    (directory / "_delta_log" / f"{0:020}.json").write_text(lines)


def conditions():
    """No rows, but every kind of condition that new ones must meet."""
    directory = start("conditions")
    more = json.dumps({"expression": {"expression": "amount > 3"}})
    fields = [
        field("id", "long", nullable=False),
        field("amount", "long", **{"delta.invariants": more}),
        field("at", "timestamp"),
        field("day", "date", **{"delta.generationExpression": "CAST(at AS DATE)"}),
    ]
    small = {"constraints__small": "amount < 100 OR `id` = 7"}
    legacy = {"protocol": {"minReaderVersion": 1, "minWriterVersion": 4}}
    commit(directory, 0, legacy, metadata("conditions", fields, **small))


def by_deltalake():
    """Three versions by the Python package: partitions, a constraint, a deletion, its types."""
    from deltalake import DeltaTable, write_deltalake

    directory = HERE / "by_deltalake"
    shutil.rmtree(directory, ignore_errors=True)
    first = pa.table(
        {
            "id": pa.array([1, 2, 3], pa.int64()),
            "day": pa.array([datetime.date(2024, 1, 1)] * 2 + [None], pa.date32()),
            "note": ["a b/c", "ü 'quoted' \"twice\"", None],
            "score": pa.array([0.5, None, 1.5], pa.float64()),
            "price": pa.array(["1.10", "22.22", None]).cast(pa.decimal128(10, 2)),
            "tags": pa.array([["x", "y"], [], None], pa.list_(pa.string())),
            "raw": pa.array([b"\0\1", b"", None], pa.binary()),
            "court": ["1st/2nd", "1st/2nd", "9th %20"],
        }
    )
    write_deltalake(directory, first, partition_by=["court"])
    table = DeltaTable(directory)
    table.alter.add_constraint({"positive_id": "id > 0"})
    write_deltalake(directory, first.slice(0, 1).set_column(0, "id", [[4]]), mode="append")
    DeltaTable(directory).delete("id = 2")


deletion_vectors()
column_mapping("name", "column_mapping_name")
column_mapping("id", "column_mapping_id")
# Numbers alone tell the columns, as in files that another table format wrote.
column_mapping("id", "column_mapping_numbers", "before", "renamed")
v2_checkpoint()
timestamp_ntz()
type_widening()
catalog_managed()
read_only()
conditions()
if sys.argv[1:] == ["all"]:
    by_deltalake()
