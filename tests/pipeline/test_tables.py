from __future__ import annotations

import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from deepssim import tables
from deepssim.tables import TableStream, TableWriter, parquet_to_csv

SCHEMA = pa.schema([("id", pa.string()), ("x", pa.int64())])


def rows(start: int, n: int) -> pa.Table:
    return pa.table(
        {"id": [f"id-{i % 13}" for i in range(start, start + n)], "x": list(range(start, start + n))}, SCHEMA
    )


@settings(max_examples=25, deadline=None)
@given(st.lists(st.integers(0, 250), max_size=8))
def test_bytes_do_not_depend_on_how_rows_came(tmp_path_factory, sizes):
    folder = tmp_path_factory.mktemp("tables")
    before, tables.ROW_GROUP = tables.ROW_GROUP, 100
    try:
        with TableWriter(folder / "a.parquet", SCHEMA) as writer:
            start = 0
            for size in sizes:
                writer.add(rows(start, size))
                start += size
        with TableWriter(folder / "b.parquet", SCHEMA) as writer:
            writer.add(rows(0, start))
    finally:
        tables.ROW_GROUP = before
    assert (folder / "a.parquet").read_bytes() == (folder / "b.parquet").read_bytes()
    assert pq.read_table(folder / "a.parquet").equals(rows(0, start))


def test_a_failed_table_leaves_the_old_one(tmp_path):
    path = tmp_path / "t.parquet"
    path.write_bytes(b"old")

    def fail() -> None:
        with TableWriter(path, SCHEMA) as writer:
            writer.add(rows(0, 5))
            raise RuntimeError("stop")

    with pytest.raises(RuntimeError, match="stop"):
        fail()
    assert path.read_bytes() == b"old"
    assert [p.name for p in tmp_path.iterdir()] == ["t.parquet"]


def test_a_stream_hands_out_any_pieces_and_names_what_is_missing():
    stream = TableStream([rows(0, 3), rows(3, 0), rows(3, 10)])
    taken = pa.concat_tables([stream.take(n) for n in (1, 5, 0, 7)])
    assert taken.equals(rows(0, 13))
    with pytest.raises(ValueError, match="2 rows are missing"):
        stream.take(2)


def test_formulas_are_text_in_csv(tmp_path):
    table = pa.table({"id": ["=1+1", "+x", "-x", "@x", "\tx", 'plain,\n"q"']})
    pq.write_table(table, tmp_path / "t.parquet")
    parquet_to_csv(tmp_path / "t.parquet", tmp_path / "t.csv")
    import csv

    with (tmp_path / "t.csv").open(newline="") as file:
        read = [row[0] for row in csv.reader(file)]
    assert read == ["id", "'=1+1", "'+x", "'-x", "'@x", "'\tx", 'plain,\n"q"']
