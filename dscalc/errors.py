"""What dscalc raises for input that it cannot answer."""


class DscalcError(ValueError):
    """One sentence that names the value, the rule it breaks and, where there is one, the fix."""


class CrosscheckError(DscalcError):
    """The layer could not be counted on real modules; its formulas hold all the same."""


class FileError(DscalcError):
    """All that is wrong with a file, one ``FILE:LINE: reason`` a line."""
