"""Dashboards as code. `make dashboards` writes `grafana/dashboards/*.json` again; a test compares."""
