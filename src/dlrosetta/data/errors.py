"""The one error of this package: what was expected and received, and what to do."""


class DataError(Exception):
    """Data is missing, broken or out of reach. `hint` is the next thing to do."""

    def __init__(self, message, hint=None):
        super(DataError, self).__init__(message if hint is None else "%s. Next: %s" % (message, hint))
        self.message = message
        self.hint = hint
