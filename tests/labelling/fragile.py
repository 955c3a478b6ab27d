"""An oracle that breaks in the ways in which calculations break; worker processes import this file, so it is light."""

import os
import signal

from matdesinne.oracles.base import Column, Oracle


class Fragile(Oracle):
    """x1 + x2; a negative x1 kills the process, a negative x2 raises, until it is mended."""

    mended = False

    def columns(self):
        return {"total": Column("eV"), "count": Column("", "count"), "both": Column("eV", "list")}

    def settings(self):
        return {"oracle": "fragile"}

    def kpoints(self):
        return {"kpoints": [[0.0, 0.0], [0.5, 0.0]]}

    def _label(self, x):
        [[left, right]] = x.tolist()
        if left < 0 and not self.mended:
            os.kill(os.getpid(), signal.SIGKILL)
        if right < 0 and not self.mended:
            raise RuntimeError("did not converge")
        return {"total": [left + right], "count": [3], "both": [[left, right]]}
