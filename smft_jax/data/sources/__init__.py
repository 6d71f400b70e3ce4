"""Reads texts, questions, documents and choices from files."""
