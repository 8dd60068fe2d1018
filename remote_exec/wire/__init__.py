"""What goes over a stream: frames and messages without I/O, and the blocking shell over them.

Two kinds of stream exist. The *control* streams (client and agent, agent and fork server, agent and worker) carry
`messages`, JSON with an optional body, typed and validated. The *call* streams, handed from the client to a
worker, carry `frames`: a fixed header and a payload, since there every microsecond counts.
"""
