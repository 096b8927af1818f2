"""Local servers for one machine: real PostgreSQL and Redis, run from installed packages."""
