"""Processes: broker and middleware, dispatcher, metrics, health, main."""
