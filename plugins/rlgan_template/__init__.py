"""Complete packages of one plugin each, as data: ``rlgan plugins new`` copies ``env`` or ``agent`` under a new name."""
