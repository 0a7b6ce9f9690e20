"""What is executed, through the API: runs and tasks, queues, schedules, workers."""
