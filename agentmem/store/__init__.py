"""The store: agents on disk. Knows no model and no transformers."""
