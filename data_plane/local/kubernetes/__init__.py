"""A real Kubernetes control plane on the loopback address, for tests and for trying things out.

etcd, the API server, the controller manager and the scheduler are the real programs, built from their Go modules; kwok
plays the kubelet, so that pods get ready without a container being run. It is never started unless it is asked for.
"""
