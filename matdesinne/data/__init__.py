"""Tables of designs with known properties."""
