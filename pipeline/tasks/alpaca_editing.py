"""Alpaca's instructions that bring a text to work on, as a skill of their own.

The option ``kind`` says which they are; everything is as in the task ``alpaca``.
"""

from pipeline.tasks.alpaca import TABLES, Options, native_splits, needed, question, score

__all__ = ["TABLES", "Options", "native_splits", "needed", "question", "score"]
