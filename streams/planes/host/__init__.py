"""The plane's process: started and kept by a worker, wired in the child, orders in queues by kind of work."""
