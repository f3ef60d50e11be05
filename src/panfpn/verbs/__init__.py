"""The verbs of the command line, each a function of its arguments: parse, call, print; no logic."""
