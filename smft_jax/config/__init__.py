"""The door: turns a ConfigDict into frozen dataclasses, once."""
