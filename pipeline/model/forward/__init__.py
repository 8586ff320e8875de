"""One pass of a frozen model: loading it, attaching adapters, attention, log-probabilities, shared prefixes."""
