"""The storage: files, records, leases, and what is done."""
