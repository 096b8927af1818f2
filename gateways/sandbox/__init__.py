"""Local servers for one machine: real PostgreSQL and Redis, and servers that behave like vendors."""
