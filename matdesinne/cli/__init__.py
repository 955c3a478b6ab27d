"""The command line: configurations, settings, installed commands."""
