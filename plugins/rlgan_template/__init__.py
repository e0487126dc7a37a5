"""Complete packages of one plugin each, as data: ``rlgan plugins new`` copies one of them under a new name."""
