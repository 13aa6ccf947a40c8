"""Parquet files as records, through pyarrow."""

from __future__ import annotations

from typing import BinaryIO

from evomerge.evaluation.errors import MissingLibraryError, RowError
from evomerge.evaluation.reading.records import Limits, Record, Records
from evomerge.evaluation.reading.shapes import FIELDS, shape_of

_BATCH_ROWS = 1024


def read_parquet(stream: BinaryIO, limits: Limits) -> Records:
    """Rows of a Parquet file, a batch at a time.

    Raises:
        MissingLibraryError: pyarrow is not installed.
    """
    try:
        import pyarrow as pa
        import pyarrow.parquet as pq
    except ImportError as error:
        raise MissingLibraryError("pyarrow", "reading Parquet") from error
    row = 0
    try:
        file = pq.ParquetFile(stream)
        names = list(file.schema_arrow.names)
        # Other columns may be of any size; they are read only to be named in a refusal.
        wanted = [name for name in names if name in FIELDS] if shape_of(names) else names
        for batch in file.iter_batches(batch_size=_BATCH_ROWS, columns=wanted):
            for fields in batch.to_pylist():
                row += 1
                yield Record(row, fields)
    except (pa.ArrowException, OSError) as error:
        reason = str(error).splitlines()[0]
        yield RowError(row + 1 if row else None, None, f"is not valid Parquet: {reason}")
