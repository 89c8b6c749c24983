"""What dscalc raises for input that it cannot answer."""


class DscalcError(ValueError):
    """One sentence that names the value, the rule it breaks and, if there is one, the fix."""


class CrosscheckError(DscalcError):
    """fvcore or torch could not count the layer; its formulas are still true."""


class FileError(DscalcError):
    """Every error in a file, one ``FILE:LINE: reason`` per line."""
