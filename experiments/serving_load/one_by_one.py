"""The plain endpoint that one writes first: a function of one row, in a pool of threads.

FastAPI calls a `def` in the same pool of the same Starlette. A request is
{"id": …, "row": {column: value}}, an answer {"id": …, output: value}.
"""

import socket
import sys

import uvicorn
from starlette.applications import Starlette
from starlette.concurrency import run_in_threadpool
from starlette.requests import Request
from starlette.responses import JSONResponse
from starlette.routing import Route

from jaxml import serving


def application(bundle: serving.Bundle) -> Starlette:
    """Returns the endpoint POST /predict."""

    def predict(content: dict) -> JSONResponse:
        columns = {name: [value] for name, value in content["row"].items()}
        errors = [each for each in bundle.check(columns) if each.severity == "error"]
        if errors:
            return JSONResponse({"error": str(errors[0])}, 422)
        answer = {name: each.tolist()[0] for name, each in bundle.predict(columns).items()}
        return JSONResponse({"id": content["id"], **answer})

    async def endpoint(request: Request) -> JSONResponse:
        return await run_in_threadpool(predict, await request.json())

    return Starlette(routes=[Route("/predict", endpoint, methods=["POST"])])


def main(path: str) -> None:
    """Serves a bundle on a free port, and says which."""
    bundle = serving.load(path)
    bundle.warm()
    with socket.create_server(("127.0.0.1", 0), backlog=1024) as listening:
        print(f"serving on http://127.0.0.1:{listening.getsockname()[1]}", flush=True)
        config = uvicorn.Config(application(bundle), log_level="warning", access_log=False)
        uvicorn.Server(config).run(sockets=[listening])


if __name__ == "__main__":
    main(sys.argv[1])
