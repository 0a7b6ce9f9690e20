"""Commands about what is executed: runs, triggers, queues, schedules, workers."""
