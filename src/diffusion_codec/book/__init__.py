"""The house around the book: runs the notebooks, keeps their results, builds and checks the site.

Importing this package, and asking whether everything is up to date, loads nothing heavy.
"""
