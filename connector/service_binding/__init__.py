"""The service binding: what a workspace is given instead of a PostgreSQL of its own.

Three forms of one thing, none of which holds a secret:
    - ``asset``: the project asset, which says what there is and where it is leased from;
    - ``dokploy``: a compose fragment whose OpenBao agent keeps a lease in memory beside the application;
    - ``kubernetes``: manifests by which a cluster makes the Secret, or a sidecar the files, of the Service Binding
      specification (https://servicebinding.io).
"""

from connector.service_binding.asset import ProjectAsset, asset_json_schema, project_asset
from connector.service_binding.catalogue import BindingForm, catalogue_entry
from connector.service_binding.dokploy import compose_fragment
from connector.service_binding.kubernetes import Provision, Target, manifests
from connector.service_binding.target import Route, Service, SignIn, Workload

__all__ = [
    "BindingForm",
    "ProjectAsset",
    "Provision",
    "Route",
    "Service",
    "SignIn",
    "Target",
    "Workload",
    "asset_json_schema",
    "catalogue_entry",
    "compose_fragment",
    "manifests",
    "project_asset",
]
