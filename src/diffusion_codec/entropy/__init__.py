"""Hyperprior and context model in integers, stored probability tables, range coder."""
