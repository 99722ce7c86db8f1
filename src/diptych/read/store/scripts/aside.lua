-- Counts the rows of a generation that are set aside, and names some, together with the lease.
--
-- KEYS: lease, aside. ARGV: how many to name at most.
-- Returns the lease (false if none), how many there are, and of those named the keys and what is stored.

local named = redis.call('ZRANGE', KEYS[2], 0, ARGV[1] - 1)
local stored = #named > 0 and redis.call('MGET', unpack(named)) or {}
return { redis.call('GET', KEYS[1]), redis.call('ZCARD', KEYS[2]), named, stored }
