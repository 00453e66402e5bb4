"""Draws of the random effects given the responses: the E-step of Monte Carlo EM."""
