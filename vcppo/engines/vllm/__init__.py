"""The engine that writes with vLLM, in this process or in a server."""
