"""A frozen model: one pass of it (``forward``), and token after token (``decoding``)."""
