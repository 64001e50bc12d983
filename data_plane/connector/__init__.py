"""What the platform around the program uses of it: leases for the attached projects."""
