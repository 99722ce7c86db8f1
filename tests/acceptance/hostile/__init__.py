"""Clients that mean harm, by raw sockets: connections that are held open, and requests that no client sends."""
