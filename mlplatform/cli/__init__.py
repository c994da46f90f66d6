"""The command line: one file per command group, each loaded only when it is called."""
