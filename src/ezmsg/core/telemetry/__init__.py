"""Consumers of the recorder: what a process measured, on its way to the server and to whoever reads it."""
