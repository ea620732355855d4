"""The pool: sessions pinned to warm CLI processes."""
