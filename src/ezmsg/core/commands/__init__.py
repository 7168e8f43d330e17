"""The commands of `ezmsg`, one module each."""
