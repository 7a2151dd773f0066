"""Whose sample is it: which VMs there are, and the guest context of a sample."""
