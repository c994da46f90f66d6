"""Put the items that `mlplatform search export MODEL items.parquet` wrote into Milvus.

    import_items.py items.parquet --uri http://localhost:19530 --collection items

The environment needs pymilvus and pyarrow. With a file as the URI, Milvus Lite runs in this process.
"""

import argparse

import pyarrow.parquet as pq  # noqa: TID251 - of Milvus' environment, and of our own files
from pymilvus import DataType, MilvusClient

_BATCH = 1000


def import_items(client: MilvusClient, file: str, collection: str) -> int:
    """Create a collection and insert all rows of a file; return how many."""
    table = pq.ParquetFile(file)
    first = next(table.iter_batches(1)).to_pylist()[0]
    # The columns to filter by are dynamic fields: a row without a value has none.
    schema = client.create_schema(auto_id=True, enable_dynamic_field=True)
    schema.add_field("row", DataType.INT64, is_primary=True)  # an item has as many rows as photos
    schema.add_field("item_id", DataType.VARCHAR, max_length=1024)
    schema.add_field("vector", DataType.FLOAT_VECTOR, dim=len(first["vector"]))
    index = client.prepare_index_params()
    # Vectors have length 1: their product is the cosine, as our own index scores it.
    index.add_index("vector", index_type="FLAT", metric_type="IP")
    client.create_collection(collection, schema=schema, index_params=index)
    count = 0
    for batch in table.iter_batches(_BATCH):
        rows = [{k: v for k, v in row.items() if v is not None} for row in batch.to_pylist()]
        count += client.insert(collection, rows)["insert_count"]
    return count


def main() -> None:
    """Import, and print how many rows."""
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter
    )
    parser.add_argument("file")
    parser.add_argument("--uri", required=True)
    parser.add_argument("--collection", default="items")
    arguments = parser.parse_args()
    client = MilvusClient(arguments.uri)
    print(f"{import_items(client, arguments.file, arguments.collection)} rows imported")
    client.close()


if __name__ == "__main__":
    main()
