"""Whether a guest's memory is encrypted: what its VMM was told, what the host can do, how it looks.

AMD SEV, SEV-ES and SEV-SNP, Intel TDX: the host then reads ciphertext, or nothing at all.
"""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

import numpy as np

from kvmperf_magic.guests.commandline import options, properties, told
from kvmperf_magic.guests.memory import Access
from kvmperf_magic.guests.vmmmemory import PAGE, Mapping

_OBJECTS = re.compile(r"(?:sev|sev-snp|tdx)-guest")
_MACHINE = ("confidential-guest-support", "memory-encryption")  # the second before QEMU 5.2
_PROTECTED = ("--protected-vm", "--protected-vm-with-firmware", "--protected-vm-without-firmware")
# of the modules that run guests: what is switched on
_SWITCHES = {
    "kvm_amd/parameters/sev_snp": "SEV-SNP",
    "kvm_amd/parameters/sev_es": "SEV-ES",
    "kvm_amd/parameters/sev": "SEV",
    "kvm_intel/parameters/tdx": "TDX",
}
_SAMPLE = 256  # pages
_VALUES = 240  # of 256 a byte can have: a page of noise has nearly all of them
_MOST = 0.95


def told_encrypted(command: Sequence[str]) -> str:
    """What of its VMM's options says that the guest's memory is encrypted; "" where none does."""
    for value in options(command, "-object"):
        kind = told(value, "qom-type").get("qom-type", "")
        if _OBJECTS.fullmatch(kind):
            return kind
    for value in (*options(command, "-machine"), *options(command, "-M")):
        given = told(value, "type")
        for name in _MACHINE:
            if name in given:
                return f"{name}={given[name]}"
    for value in options(command, "--platform"):  # cloud-hypervisor
        given = properties(value, "")
        for name in ("tdx", "sev_snp"):
            if given.get(name) == "on":
                return f"{name}=on"
    return next((part for part in command if part in _PROTECTED), "")  # crosvm


def host_encrypts(modules: Path = Path("/sys/module")) -> str:
    """The best that this host can do, "" where it encrypts no guest's memory or does not say."""
    for name, what in _SWITCHES.items():
        try:
            if (modules / name).read_text().strip() in ("Y", "1"):
                return what
        except OSError:
            continue
    return ""


def has_guest_memfd(pid: int, proc: Path = Path("/proc")) -> bool:
    """Whether the VMM has memory that need not be mapped (virt/kvm/guest_memfd.c)."""
    try:
        return any("[kvm-gmem]" in str(fd.readlink()) for fd in (proc / str(pid) / "fd").iterdir())
    except OSError:
        return False


def looks_encrypted(vmm: Access, ram: Sequence[Mapping]) -> bool:
    """Whether nearly all of what is there is noise: no zeros, no text, no code. What is only
    compressed does not fill a memory."""
    pages = []
    for one in ram:
        step = max(PAGE, one.size // _SAMPLE // PAGE * PAGE)
        pages.append(np.arange(one.start, one.end - PAGE + 1, step).astype(np.uint64))
    wanted = np.concatenate(pages)[: 4 * _SAMPLE]
    wanted = wanted[vmm.exist(wanted)][:_SAMPLE]
    if len(wanted) < _SAMPLE // 8:  # too little to tell
        return False
    heads = vmm.gather(wanted, PAGE)
    noisy = sum(int(np.count_nonzero(np.bincount(row, minlength=256))) > _VALUES for row in heads)
    return noisy >= _MOST * len(wanted)
