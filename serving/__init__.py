"""The translation service: a Ray Serve application with a FastAPI gateway and translator replicas.

The order to read it in: `config` (settings), `protocol` (what gateway and replica say to each other), `gateway` (the HTTP
surface, pure FastAPI) with `access` (who may ask), `replica` and `admission` (how a model takes requests, pure asyncio), `backend` (models
near and far), `app` (all of it as Ray deployments), `environment` and `haproxy` (what Ray's processes find), `__main__` (the launcher
behind `nmt serve`).
"""
