"""What the fault tests run on: a project, receivers, the truth, and the checker of its rules."""
