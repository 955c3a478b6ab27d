"""Forward models: from a design to its properties, with a spread and a gradient."""
