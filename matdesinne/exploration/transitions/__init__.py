"""Metal-insulator transitions among designs."""
