"""The command line: one thin file a command; each parses, calls the library and prints.

Nothing here imports torch or anything else that is heavy before the arguments are known to be right.
"""
