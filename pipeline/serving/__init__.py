"""Adapted models in use: one engine behind the command line, the Python entry and the HTTP server."""
