"""A small engine for the same program, where the Pulumi CLI cannot be had.

It answers the SDK's resource monitor interface in-process, reads what is there from the real servers, and creates or
changes what differs. It never deletes, keeps no state but stack outputs and what cannot be read back, and knows only
the resource types that the program uses: state, drift and destroy are the real engine's.
"""
