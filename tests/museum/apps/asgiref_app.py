"""A value in a thread's and task's own storage for each request, as Django has them."""

from asgi import service
from asgiref.local import Local

locals_ = [Local() for _ in range(40)]


async def request():
    for local in locals_:
        local.user = object()


app = service(request)
