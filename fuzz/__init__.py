"""Hostile recordings: mutated files, streams, sections and tracing data against the reader.

`make fuzz` lets libFuzzer, by way of atheris, look for inputs that reach new code; what it may
find is an exception that is not ours, a hang, or memory beyond the limit. tests/fuzz runs a few
seconds of the same without it, and all inputs that were ever found.
"""
