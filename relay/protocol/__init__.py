"""The formats that are relayed, without any input or output: Server-Sent Events, chats, responses, and the routes' shapes."""
