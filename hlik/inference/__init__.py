"""After the fit: tables, from the InferenceData alone."""
