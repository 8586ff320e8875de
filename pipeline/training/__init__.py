"""Objectives and the loops around them. A trainer knows no task (rewards are callables) and no method (learners)."""
