"""Runs that are struck on purpose: what each part's death, halt or damage does to a run, and what it costs."""
