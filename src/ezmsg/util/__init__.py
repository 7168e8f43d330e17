"""Messages, units and helpers for programs on top of `ezmsg.core`; import the modules themselves."""
