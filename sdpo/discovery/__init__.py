"""Test-time self-distillation (arXiv 2601.20802 §5): how many attempts it takes to solve one hard question at all."""
