"""Pages of users, cleaned."""

from asgi import service
from lxml.html.clean import Cleaner

page = "<html><body>" + "<p onclick='x()'>text <a href='javascript:x()'>link</a></p>" * 20 + "</body></html>"


def clean():
    for _ in range(5):
        Cleaner().clean_html(page)


app = service(clean)
