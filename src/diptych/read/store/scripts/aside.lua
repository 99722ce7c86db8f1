-- Counts the set-aside rows of a generation and names some, together with the lease.
--
-- KEYS: lease, aside. ARGV: the number of rows to name at most.
-- Returns the lease (false if none), the number of rows, and the keys and stored documents of the named rows.

local named = redis.call('ZRANGE', KEYS[2], 0, ARGV[1] - 1)
local stored = #named > 0 and redis.call('MGET', unpack(named)) or {}
return { redis.call('GET', KEYS[1]), redis.call('ZCARD', KEYS[2]), named, stored }
