"""The first pass: how experts are mixed for a prompt or a task. All that a strategy returns ends in a ``Mixture``."""
