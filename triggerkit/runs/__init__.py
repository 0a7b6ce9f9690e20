"""Runs: accepted executions of tasks, durable in Postgres; Redis only carries their ids."""
