"""OpenTelemetry for ezmsg graphs: the only code of this distribution that imports ``opentelemetry``."""
