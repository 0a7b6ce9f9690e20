"""The keeper: makes due runs runnable, and gives the runs of dead workers to others."""
