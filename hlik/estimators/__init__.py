"""Estimators: frozen settings, one interface (`hlik.estimators.base`)."""
