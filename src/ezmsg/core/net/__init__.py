"""Sockets: addresses, the key, listening, dialling, and connections that carry frames. asyncio starts here."""
