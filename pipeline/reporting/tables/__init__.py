"""The report's tables, one module a kind."""
