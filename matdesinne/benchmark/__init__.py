"""The suites of the benchmark: Table 1 of the paper, posteriors, re-simulation and speed."""
