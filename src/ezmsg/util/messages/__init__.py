"""The message type for signals, and units that make or change such messages."""
