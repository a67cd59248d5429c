"""The formats that are relayed, sans-IO: Server-Sent Events, the streams of chats and responses, and the table of endpoints."""
