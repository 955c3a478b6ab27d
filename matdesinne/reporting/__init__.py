"""Tables, figures and report pages that several commands share."""
