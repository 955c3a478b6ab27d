"""What a value of a property costs at least: the frontier of two properties."""
