"""Guests whose memory is encrypted: what says so, and what must not."""

from __future__ import annotations

import os
import random
from pathlib import Path

import pytest
from vmram import as_ram

from kvmperf_magic.guests import finding
from kvmperf_magic.guests.encryption import has_guest_memfd, host_encrypts, told_encrypted
from kvmperf_magic.guests.finding import find_kernel
from kvmperf_magic.guests.vmmmemory import VmmMemory

SIZE = 22 << 20  # no other mapping here is that large


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ("-machine q35,confidential-guest-support=sev0 -object sev-guest,id=sev0", "sev-guest"),
        ("-M q35,confidential-guest-support=sev0", "confidential-guest-support=sev0"),
        ("-object sev-snp-guest,id=a,cbitpos=51 -m 4G", "sev-snp-guest"),
        ("-object {} -object tdx-guest,id=tdx", "tdx-guest"),
        ("-name sev-guest,debug-threads=on -m 512", ""),
        ("-object memory-backend-ram,id=sev-guest-ram,size=1G", ""),
        ('-object {"qom-type":"tdx-guest","id":"lsec0"} -m 4G', "tdx-guest"),
        ('-object {"qom-type":"rng-random","id":"sev-guest"} -object {cut', ""),
        ("-machine pc,memory-encryption=sev0", "memory-encryption=sev0"),
        ("-machine q35,memory-backend=sev-guest", ""),
        ("--platform tdx=on,num_pci_segments=1", "tdx=on"),
        ("--platform sev_snp=off", ""),
        ("run --protected-vm --mem 512", "--protected-vm"),
        ("", ""),
    ],
)  # fmt: skip
def test_encrypted_guests_are_told_by_their_options(options: str, said: str) -> None:
    assert told_encrypted(["qemu-system-x86_64", *options.split()]) == said


@pytest.mark.parametrize(
    ("switches", "said"),
    [
        ({}, ""),
        ({"kvm_amd/parameters/sev": "N", "kvm_amd/parameters/sev_es": "0"}, ""),
        ({"kvm_amd/parameters/sev": "Y", "kvm_amd/parameters/sev_es": "N"}, "SEV"),
        ({"kvm_amd/parameters/sev": "1", "kvm_amd/parameters/sev_snp": "Y"}, "SEV-SNP"),
        ({"kvm_intel/parameters/tdx": "Y"}, "TDX"),
    ],
)
def test_what_a_host_can_do(tmp_path: Path, switches: dict[str, str], said: str) -> None:
    for name, value in switches.items():
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        (tmp_path / name).write_text(value + "\n")
    assert host_encrypts(tmp_path) == said


def test_memory_of_noise_looks_encrypted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(finding, "host_encrypts", lambda: "SEV-ES")
    noise = random.Random(5).randbytes(1 << 20)
    code = Path(os.__file__).read_bytes().ljust(1 << 20, b"\0")
    with as_ram(SIZE) as area:
        # most of a guest's memory, if compressed data is in a third of it
        area[:] = (noise + code + code) * (SIZE // (3 << 20)) + noise
        plain = find_kernel(VmmMemory(os.getpid()), SIZE)
        area[:] = noise * (SIZE >> 20)
        found = find_kernel(VmmMemory(os.getpid()), SIZE)
    assert "no Linux kernel in its memory" in plain.why
    assert found.kernel is None
    assert found.why == (
        "what is in its memory is noise, as if it were encrypted (this host has SEV-ES)"
    )


def test_memory_that_is_not_mapped_is_told_of(tmp_path: Path) -> None:
    folder = tmp_path / "7" / "fd"
    folder.mkdir(parents=True)
    (folder / "3").symlink_to("anon_inode:kvm-vm")
    assert not has_guest_memfd(7, tmp_path)
    (folder / "4").symlink_to("anon_inode:[kvm-gmem]")
    assert has_guest_memfd(7, tmp_path)
    assert not has_guest_memfd(8, tmp_path)
