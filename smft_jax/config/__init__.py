"""Turns config files and command lines into frozen dataclasses."""
