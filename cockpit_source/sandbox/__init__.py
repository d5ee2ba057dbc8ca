"""A stand-in for the CloudCockpit CSP API: a simulated tenant behind a local web server.

It needs no credentials and imports nothing else of this project.
"""

from cockpit_source.sandbox.app import create_app
from cockpit_source.sandbox.credentials import CSP_CLIENT, RESELLER_CLIENT, TOKEN_SCOPE, ApiClient
from cockpit_source.sandbox.events import Event, EventKind
from cockpit_source.sandbox.faults import AIMED_KINDS as AIMED_FAULT_KINDS
from cockpit_source.sandbox.faults import KINDS as FAULT_KINDS
from cockpit_source.sandbox.faults import Faults
from cockpit_source.sandbox.products import Product, load_products
from cockpit_source.sandbox.request_log import LoggedRequest
from cockpit_source.sandbox.server import running_sandbox, serve
from cockpit_source.sandbox.settings import SettingValues
from cockpit_source.sandbox.spawn import SpawnedSandbox, spawned_sandbox
from cockpit_source.sandbox.state import Sandbox
from cockpit_source.sandbox.tenant import Customer, ProviderInstance, Reseller, SandboxTenant

__all__ = [
    "AIMED_FAULT_KINDS",
    "CSP_CLIENT",
    "FAULT_KINDS",
    "RESELLER_CLIENT",
    "TOKEN_SCOPE",
    "ApiClient",
    "Customer",
    "Event",
    "EventKind",
    "Faults",
    "LoggedRequest",
    "Product",
    "ProviderInstance",
    "Reseller",
    "Sandbox",
    "SandboxTenant",
    "SettingValues",
    "SpawnedSandbox",
    "create_app",
    "load_products",
    "running_sandbox",
    "serve",
    "spawned_sandbox",
]
