"""Campaigns: a whole desk of real processes and servers is broken at random, and held against what it promised."""
