"""The state of a graph. Synchronous and pure: an event in, what changed out."""
