"""UltraFeedback's instructions of the FLAN collection, tasks of natural language processing, as a skill of their own.

Which they are, the option ``sources`` says; everything is as in the task ``ultrafeedback``.
"""

from pipeline.tasks.ultrafeedback import TABLES, Options, native_splits, needed, question, score

__all__ = ["TABLES", "Options", "native_splits", "needed", "question", "score"]
