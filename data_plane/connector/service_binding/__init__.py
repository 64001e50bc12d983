"""The service binding: what a workspace is given instead of a PostgreSQL of its own.

Three forms of one thing, none of which holds a secret:
    - ``asset``: the project asset, which says what there is and where it is leased from;
    - ``dokploy``: a compose fragment whose OpenBao agent keeps a lease in memory beside the application;
    - ``kubernetes``: manifests by which a cluster makes the Secret, or a sidecar the files, of the Service Binding
      specification (https://servicebinding.io).
"""

from data_plane.connector.service_binding.asset import ProjectAsset, asset_json_schema
from data_plane.connector.service_binding.catalog import SERVICE_CATALOGUE_FILE, service_catalog_text, service_entry
from data_plane.connector.service_binding.kubernetes import Provision
from data_plane.connector.service_binding.request import BindingForm, BindRequest, bind_request, binding_text

__all__ = [
    "SERVICE_CATALOGUE_FILE",
    "BindRequest",
    "BindingForm",
    "ProjectAsset",
    "Provision",
    "asset_json_schema",
    "bind_request",
    "binding_text",
    "service_catalog_text",
    "service_entry",
]
