"""The bounds of every conversation, in one place: bytes, peers, requests and seconds."""

from __future__ import annotations

# -- before a peer is authenticated ---------------------------------------------------------------------------------
HANDSHAKE_BYTES = 4096
# A TLS peer may send as much before it was answered, and so much altogether: a chain of certificates is larger.
TLS_HANDSHAKE_BYTES = 16384
HANDSHAKE_TIMEOUT_S = 2.0
# Of one listener, whatever its sockets.
UNAUTHENTICATED_PEERS = 64
# Connections that wait in the kernel until one of the above is free.
ACCEPT_BACKLOG = 1024

# -- after ----------------------------------------------------------------------------------------------------------
CONTROL_FRAME_BYTES = 64 << 20
# Most records are small; these may be so large (see `wire.records`).
SMALL_RECORD_BYTES = 1 << 20
# What may wait for a peer that reads too slowly, before it is dropped.
WRITE_BUFFER_BYTES = 64 << 20
# With so much waiting for it, a server reads no more from a peer. For all its peers together it holds at most so much,
# of which less than `HEAVY_BYTES` for one of them is not counted.
THROTTLE_BYTES = 1 << 20
PEERS_BYTES = 1 << 30
HEAVY_BYTES = 1 << 20
REQUESTS_AT_ONCE = 1024
# Process requests in flight, those for built-in operations and those for handlers apart: to or from one client, and
# through one server; a quarter more for requesters with few. Both kinds together leave a connection room for others.
ROUTED_PER_CLIENT = 400
ROUTED_AT_ONCE = 4096
# What a publisher may take to pause or resume: its loop may be busy, but not for that long.
PUBLISHER_FLOW_TIMEOUT_S = 5.0
RECEIVE_BUFFER_BYTES = 64 << 10
# A server answers what is in the buffer of one peer before it looks at the others'.
CONTROL_BUFFER_BYTES = 16 << 10

# -- what is in a record --------------------------------------------------------------------------------------------
# Topics, addresses of components, hosts, ids: in characters.
NAME_LENGTH = 4096

# -- the graph --------------------------------------------------------------------------------------------------------
# What a server keeps of all peers together, in encoded bytes. An edge counts for each owner it has, a unit for its one,
# each with so many bytes more.
GRAPH_BYTES = 16 << 20
UNITS_BYTES = 16 << 20
ENTRY_BYTES = 64
METADATA_BYTES = 256 << 20

# -- settings and events --------------------------------------------------------------------------------------------
# One value of settings: it has to fit a frame together with the event that tells it.
SETTINGS_BYTES = 16 << 20
# All that processes report, together.
REPORTED_BYTES = 256 << 20
# Events of one kind that are kept for readers to come, besides the configured number. Answers in pages have such pages.
EVENT_HISTORY_BYTES = 64 << 20
PAGE_BYTES = 8 << 20
# Metadata beyond this is no part of a snapshot, but asked for apart.
SNAPSHOT_BYTES = 16 << 20
# Events that wait at the server for one reader, and those on their way to it, before it misses some.
EVENT_QUEUE = 1024
EVENT_WINDOW = 64

# -- named shared memory --------------------------------------------------------------------------------------------
# Each takes a descriptor of the server.
SHM_SEGMENTS = 256
