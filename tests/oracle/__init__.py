"""A dense NumPy transcription of R hglm's algorithm, to test hlik against. It lives in the tests only."""
