"""The studies behind the claims: declared as data, run by command, kept as records, analysed from the records alone.

    studies.yaml → studies ─► runner (execute, collect) ─► records ─► analysis ─► page and figures

`python -m studies results` is the command; `docs/results/evidence/` holds what it made.
"""
