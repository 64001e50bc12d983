"""A small engine for the same program, where the Pulumi CLI cannot be had.

It answers the SDK's resource monitor interface in-process and calls providers in-process, reads what is there from the
real servers, and creates or changes what differs. It never deletes. It remembers the ID and the outputs of what it
made: drift, import and destroy are the real engine's.
"""
