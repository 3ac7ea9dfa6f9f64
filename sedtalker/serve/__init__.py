"""`sedtalker serve`: live faces over a network, in the formats that existing clients read.

    client -> protocol (websocket, a2f, jbin, posts) -> Session -> WorkerPool -> Engine -> Talker.open_stream
                                                             <- FrameBlock -> protocol, livelink, vmc

The front is one asyncio loop. The model runs in worker processes; a session belongs to one of them. Every queue is
bounded: a client that sends too fast is throttled, and one that is slow to read is closed.
"""
