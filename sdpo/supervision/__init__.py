"""What the parts of a run share to notice that one of them is dead, stopped or hangs."""
