"""Brings the fixtures rlgan_run and rlgan_registry."""

pytest_plugins = ["rlgan.testing.fixtures"]
