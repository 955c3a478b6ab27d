"""The command line: configurations, errors, installed commands."""
