"""Which VMs there are, whose code a sample hit, and what a guest's memory tells of its kernel."""
