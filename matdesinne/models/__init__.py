"""Generative models of designs given properties."""
