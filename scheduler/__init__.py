"""The cron scheduler: one table of schedules, and the process that fires them."""
