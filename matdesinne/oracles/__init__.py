"""Oracles: what computes the labels of designs."""
