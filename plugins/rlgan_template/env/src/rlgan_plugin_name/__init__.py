"""plugin_name, an env for rlgan."""
