"""Types, files, models, adapters, decoding: what every method and stage builds on. Knows no task and no method."""

import os

# How often OpenMP's thread looks whether the others are done before it sleeps; libgomp's own 300,000 last milliseconds.
# Where other processes want the cores, a thread that the others wait for may have been sent away, and who spins
# meanwhile takes its core: a decode loop was forty times as slow beside two busy processes. libgomp reads this as it is
# loaded, so it has to stand before torch is imported; what a person has set stays.
SPINS = 1_000
if "OMP_WAIT_POLICY" not in os.environ:
    os.environ.setdefault("GOMP_SPINCOUNT", str(SPINS))
