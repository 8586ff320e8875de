"""The server: OpenAI's API before the engine.

    GET  /v1/models, /v1/models/NAME     the strategies: a request's ``model`` is the name of one
    POST /v1/chat/completions            a chat, answered
    POST /v1/completions                 a text, continued, without a chat template
    GET  /health                         how many answers are being written, and how many wait

A mixture can also be sent in numbers, as ``{"model": "mixture", "mixture": {"sums": 0.7, "functions": 0.3}}`` (with the
openai client: in ``extra_body``). What the first pass decided comes back as ``selfadapt`` beside the usual fields.

Where OpenAI's API is silent or cannot be followed:
1. Without a temperature the answer is the most likely one, token by token. Whoever asks for several answers, or for a
   nucleus (``top_p``), wants a draw: then the temperature is 1, as it is there.
2. An answer that was cut because its time was over has the ``finish_reason`` "time".
3. A field that would change the answer and is not served is refused, not ignored; so is one that nobody knows.

Status codes: 400 the request cannot be served, 401 the API key is missing or wrong, 403 a web page of a foreign origin
asks, 404 the model or the path is unknown, 405 the path takes another method, 408 the request did not arrive in time,
413 it is too large, 421 it is meant for another host, 429 too many are waiting, 500 a fault of the server, 503 its time
was over before its turn came.

    bodies       what a request may say           connections   time for a head, and connections of one client
    guard        host, origin and API key         replies       an answer as JSON, whole or streamed
    server       routes, and the engine's thread  refusals      an error as JSON
"""
