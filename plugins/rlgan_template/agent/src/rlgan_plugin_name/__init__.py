"""plugin_name, an agent for rlgan."""
