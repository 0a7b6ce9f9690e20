"""Liveness and readiness of processes that serve nothing else."""
