"""`/v1/realtime`: OpenAI's realtime API over WebSocket, on the live sessions of the core."""
