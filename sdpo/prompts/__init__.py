"""What a student is asked and what a teacher is told."""
