"""Running submitted models and opening uploaded images, in processes that may be lost.

* `service`: what the server asks for: pixels of an upload, outputs of a model
* `pool`: a few workers of one kind, started when they are first needed
* `process`: one worker, as the server sees it
* `channel`, `messages`: what goes between the two
* `limits`: what a worker may take of the machine
* `confinement`: what a worker may reach: no network, no other process, few files
* `worker`: the worker itself; it alone loads `image_work`, or `model_work` and torch
"""
