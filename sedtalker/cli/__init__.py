"""The command line: one file per command, which parses arguments, calls the library and prints.

Modules here import torch and other large packages only after the arguments have been checked.
"""
