"""The command line, `duecourse ...`."""
