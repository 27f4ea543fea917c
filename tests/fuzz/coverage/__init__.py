"""Coverage-guided fuzzing of the readers of untrusted bytes, with atheris."""
