"""Documents to packed token shards; the parts of tools/prepare_data.py."""
