"""The same deep-learning models in every framework, proven to be the same.

This file stays empty of imports: frameworks' environments import `dlrosetta.data` through it, on Python 3.6 too.
"""

__version__ = "0.1.0"
