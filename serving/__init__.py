"""The translation service: a Ray Serve application with a FastAPI gateway and translator replicas.

The order to read it in: `config` (settings), `protocol` (what gateway and replica say to each other), `gateway` (the HTTP
surface, pure FastAPI), `admission` (how a replica takes requests, pure asyncio), `app` (both as Ray deployments), `__main__` (the
launcher behind `nmt serve`).
"""
