"""The report: tables, figures, metrics and one page, all from the files a run left. Computes no statistics."""
