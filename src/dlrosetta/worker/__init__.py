"""The worker: one process a cell, inside a framework's own environment.

It speaks the protocol of docs/protocol.md: requests and answers are JSON lines on a private pipe (frameworks print, so
standard output is never trusted), arrays travel as safetensors files. Standard library and numpy only, Python 3.6 and
up, so that the oldest framework can be served by the same code.
"""
