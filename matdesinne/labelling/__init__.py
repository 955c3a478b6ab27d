"""Labels for tables of designs: points, records, tasks, validation, active learning."""
