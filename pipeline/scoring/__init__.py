"""Reading an answer and judging it: one package per family of scorers. No torch."""
