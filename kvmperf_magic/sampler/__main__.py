"""`python -m kvmperf_magic.sampler`: the recording process, started by `process.py`."""

from kvmperf_magic.sampler.child import main

main()
