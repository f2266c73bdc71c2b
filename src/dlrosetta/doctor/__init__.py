"""Is this installation as fast as it should be? Facts of the machine, what the frameworks reach on it, and what of the
two is amiss, in plain words with what to change.

`facts.py` looks, `causes.py` judges: each cause is a function of the facts, so that a test can plant it.
"""
