"""Table 1 of the paper, and what a reader asks beside it."""
