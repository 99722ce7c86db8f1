"""The routes of the shop: a line for each command and query."""

from __future__ import annotations

from diptych.http import Endpoint
from examples.shop import messages as m

NO_SUPPLIER = "there is no supplier {id}"
NO_PRODUCT = "there is no product {sku}"
NO_ORDER = "there is no order {id}"
NO_USER = "there is no user {name}"

ENDPOINTS = (
    Endpoint("GET", "/suppliers", m.ListSuppliers),
    Endpoint("POST", "/suppliers", m.AddSupplier, status=201, location="/suppliers/{id}"),
    Endpoint("GET", "/suppliers/{id:int}", m.GetSupplier, missing=NO_SUPPLIER),
    Endpoint("PATCH", "/suppliers/{id:int}", m.RenameSupplier, body="changes", missing=NO_SUPPLIER),
    Endpoint("GET", "/products", m.ListProducts),
    Endpoint("POST", "/products", m.AddProduct, status=201, location="/products/{sku}"),
    Endpoint("GET", "/products/{sku}", m.GetProduct, missing=NO_PRODUCT),
    Endpoint("PATCH", "/products/{sku}", m.ChangeProduct, body="changes", missing=NO_PRODUCT),
    Endpoint("GET", "/orders", m.ListOrders),
    Endpoint("POST", "/orders", m.PlaceOrder, status=201, location="/orders/{id}"),
    Endpoint("GET", "/orders/{id:int}", m.GetOrder, missing=NO_ORDER),
    Endpoint("POST", "/orders/{id:int}/cancel", m.CancelOrder, missing=NO_ORDER),
    Endpoint("GET", "/users", m.ListUsers),
    Endpoint("POST", "/users", m.AddUser, status=201, location="/users/{name}"),
    Endpoint("GET", "/users/{name}", m.GetUser, missing=NO_USER),
    Endpoint("PUT", "/users/{name}/roles", m.SetRoles, body="changes", missing=NO_USER),
)
