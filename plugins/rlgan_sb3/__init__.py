"""stable-baselines3 as agents, declared as any third party declares its own."""
