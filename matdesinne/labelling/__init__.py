"""Labelling tables of designs: points, records, executors, validation."""
