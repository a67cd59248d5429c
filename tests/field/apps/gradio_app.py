"""Gradio: an interface of one function."""

import sys

import gradio


def shout(text):
    return text.upper()


gradio.Interface(shout, "text", "text", api_name="shout").launch(server_name="127.0.0.1", server_port=int(sys.argv[1]))
