"""Measures the engine beside other tools, on tables of its own in a private MariaDB. `make bench` runs it all."""
