"""The processes, each wired from its parts here and nowhere else."""
