"""Instruments that test themselves: `rosetta selftest timing`."""
