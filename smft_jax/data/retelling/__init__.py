"""Splits documents into chunks and retells them in other words."""
