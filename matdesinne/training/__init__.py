"""Training of models and surrogates with Lightning."""
