"""plugin_name, a generator for rlgan."""
