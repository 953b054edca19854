"""What runs inside the pods of a group, next to llama.cpp's processes.

`worker` keeps an RPC server running and restarts it for each new leader; `leader` gets the model,
forms the group and serves. Standard library only, so that the engine image needs just `python3`.
"""
