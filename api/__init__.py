"""The HTTP front door: commands in, a job out; reads, webhooks, health and pages."""
