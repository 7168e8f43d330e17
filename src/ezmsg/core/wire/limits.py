"""The bounds of every conversation, in one place: bytes, peers, requests and seconds."""

from __future__ import annotations

# -- before a peer is authenticated ---------------------------------------------------------------------------------
HANDSHAKE_BYTES = 4096
HANDSHAKE_TIMEOUT_S = 2.0
UNAUTHENTICATED_PEERS = 64
# Connections that wait in the kernel until one of the above is free.
ACCEPT_BACKLOG = 1024

# -- after ----------------------------------------------------------------------------------------------------------
CONTROL_FRAME_BYTES = 64 << 20
# What may wait for a peer that reads too slowly, before it is dropped.
WRITE_BUFFER_BYTES = 64 << 20
REQUESTS_AT_ONCE = 1024
# Process requests in flight, those for built-in operations and those for handlers apart: to or from one client, and
# through one server. Both kinds together leave a connection room for others.
ROUTED_PER_CLIENT = 400
ROUTED_AT_ONCE = 4096
# What a publisher may take to pause or resume: its loop may be busy, but not for that long.
PUBLISHER_FLOW_TIMEOUT_S = 5.0
RECEIVE_BUFFER_BYTES = 64 << 10

# -- settings and events --------------------------------------------------------------------------------------------
# One value of settings: it has to fit a frame together with the event that tells it.
SETTINGS_BYTES = 16 << 20
# Events that wait at the server for one reader, and those on their way to it, before it misses some.
EVENT_QUEUE = 1024
EVENT_WINDOW = 64

# -- named shared memory --------------------------------------------------------------------------------------------
# Each takes a descriptor of the server.
SHM_SEGMENTS = 256
