"""Types, files, models, adapters, decoding: what every method and stage builds on. Knows no task and no method."""
