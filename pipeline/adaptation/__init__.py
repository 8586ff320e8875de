"""The first pass: how the experts are mixed for a prompt or a task. Every strategy ends in a ``Mixture``."""
