"""A model behind HTTP: the API, the Open Inference Protocol, a page, a camera's live picture.

desk.py: a bounded queue before the threads that predict; app.py: the routes; bodies.py: what a request asks and brings;
guard.py: what a request may be, and counters; answers.py: a map as JSON or picture; protocol.py: the Open Inference
Protocol; live.py: the camera; limits.py: how large images may be; run.py: all of it on a port. Needs the extra `serve`.
"""
