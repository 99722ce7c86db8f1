"""The fence: a row of SQL for each read model in Redis, and the commands waiting for passes."""
