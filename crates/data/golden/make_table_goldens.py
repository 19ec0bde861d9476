"""The same rows as Parquet, Arrow file, Arrow stream and JSON Lines: run by hand, writes tables.*, plain* and words* next to this file."""
import json
from pathlib import Path

import pyarrow as pa
import pyarrow.ipc
import pyarrow.parquet as pq

here = Path(__file__).parent
rows = []
for i in range(23):
    messages = [{"role": "user", "content": f"Question {i} – ü"}, {"role": "assistant", "content": "Yes. " * (i % 4)}]
    if i % 5 == 0:
        messages[1]["tool_calls"] = [{"name": "count", "arguments": str(i)}]
    row = {"messages": messages, "id": i, "score": i / 4, "good": i % 2 == 0, "kind": ["a", "b"][i % 2]}
    row["note"] = None if i % 3 else f"note {i}"
    rows.append(row)
table = pa.Table.from_pylist(rows)
table = table.set_column(table.column_names.index("kind"), "kind", table["kind"].dictionary_encode())
table = table.append_column("bytes", pa.array([b"\xff"] * len(rows)))
pq.write_table(table, here / "tables.parquet", row_group_size=7, compression="zstd")
with pa.ipc.new_file(here / "tables.arrow", table.schema) as writer:
    writer.write_table(table, max_chunksize=9)
with pa.ipc.new_stream(here / "tables_stream.arrow", table.schema) as writer:
    writer.write_table(table, max_chunksize=9)
(here / "tables.jsonl").write_text("".join(json.dumps(row, ensure_ascii=False) + "\n" for row in rows))

# Plain pages and batches, in which a test can find and damage a row.
texts = [f"row {i:03} of it" for i in range(600)]
plain = pa.table({"text": texts})
options = {"compression": "none", "use_dictionary": False, "data_page_size": 1, "write_batch_size": 50}
pq.write_table(plain, here / "plain.parquet", row_group_size=200, **options)
# Not slices of one table: those hold values of each other.
batches = [pa.table({"text": texts[at : at + 10]}) for at in range(0, 40, 10)]
for name, new in [("plain.arrow", pa.ipc.new_file), ("plain_stream.arrow", pa.ipc.new_stream)]:
    with new(here / name, plain.schema) as writer:
        for batch in batches:
            writer.write_table(batch)
words = pa.table({"text": pa.array([f"word {i % 3}" for i in range(40)]).dictionary_encode()})
with pa.ipc.new_stream(here / "words_stream.arrow", words.schema) as writer:
    writer.write_table(words, max_chunksize=10)
