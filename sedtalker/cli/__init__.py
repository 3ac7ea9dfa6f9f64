"""The command line: one file per command, whose `add_parser` declares its arguments and whose `run` calls the library.

Modules here import torch and other large packages only after the arguments have been checked.
"""
