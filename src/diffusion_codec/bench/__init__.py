"""Seconds, operations and memory, measured: of the codec, of its stages, of engines, of folders, and of its peers."""
