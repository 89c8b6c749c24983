"""The peak memory of a process, measured from outside."""

import subprocess
import sys

# A small process starts the large one: the peak that Linux reports of a process starts at that of
# the one that started it, and that of a test run is far above what is measured here.
_MEASURE = """
import resource, subprocess, sys
subprocess.run(sys.argv[1:], stdout=subprocess.DEVNULL, check=True)
peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss
print(peak // 1024 if sys.platform == "darwin" else peak)
"""


class Measured:
    """A run of dscalc whose report goes nowhere; it starts at once, beside whatever else runs."""

    def __init__(self, args):
        self._process = subprocess.Popen(
            [sys.executable, "-c", _MEASURE, sys.executable, "-m", "dscalc", *args.split()],
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            text=True,
        )

    def peak(self):
        """Kilobytes."""
        stdout, stderr = self._process.communicate(timeout=600)
        assert stderr == ""
        return int(stdout)
