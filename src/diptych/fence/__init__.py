"""The fence: a row of SQL for each read model in Redis, and the commands that wait for passes over it."""
