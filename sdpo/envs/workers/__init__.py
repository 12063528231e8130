"""Calls of Python functions in processes of their own, for code that is trusted and may be faulty.

    driver ── control ──> server, which has imported the function
       │                     │ fork
       └────── channel ──> worker, one call at a time

pool     the driver's side: who waits for whom, time limits, what became of a call
server   imports the function once, forks workers, kills them with all that they started
worker   answers calls
wire     messages; results are JSON, so that nothing that a worker writes is ever unpickled
linux    what the kernel says of processes, and does to them

Code that is not trusted belongs into the sandbox.
"""
