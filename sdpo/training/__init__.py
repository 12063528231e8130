"""The loop: the trainer, what surrounds it, and what starts it."""
