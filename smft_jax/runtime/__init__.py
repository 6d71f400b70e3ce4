"""Processes, signals, progress and the shell of a program."""
