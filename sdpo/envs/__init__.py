"""Environments: where tasks come from, what the policy is shown, and what its answer was worth."""
