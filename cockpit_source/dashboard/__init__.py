"""The dashboard: a marimo app on the marts of the published read copy, served to this machine only by default."""
