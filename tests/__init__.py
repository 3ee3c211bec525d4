"""A package, so that helpers are imported as ``tests.tiny`` however pytest is started."""
