"""Errors by whose fault they are."""


class UserError(Exception):
    """Data, template or options are to blame; the message names file, line and fix."""


class ExampleError(Exception):
    """One example cannot be used. `bad` ones count against the limit of bad lines, others are only reported."""

    def __init__(self, reason, bad=True):
        super().__init__(reason)
        self.bad = bad
