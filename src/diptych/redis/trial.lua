-- Tries what passes, builds, queries and `diptych verify` need, on a key of its own that is gone afterwards.
-- KEYS: that key. Returns nothing, or the command that is refused and what Redis says to it.
local key = KEYS[1]
local trials = {
    {'time'}, {'set', key, ''}, {'get', key}, {'mget', key}, {'getrange', key, 0, 0}, {'pexpiretime', key}, {'exists', key},
    {'del', key},
    {'hset', key, 'f', ''}, {'hget', key, 'f'}, {'hmget', key, 'f'}, {'hscan', key, 0}, {'hdel', key, 'f'},
    {'sadd', key, 'm'}, {'smembers', key}, {'srem', key, 'm'},
    {'zadd', key, 0, 'm'}, {'zrange', key, 0, 0}, {'zcard', key}, {'zlexcount', key, '-', '+'}, {'zscore', key, 'm'},
    {'zmscore', key, 'm'}, {'zscan', key, 0}, {'zremrangebyrank', key, 5, 6}, {'zrem', key, 'm'},
    {'unlink', key}, {'scan', 0, 'count', 1},
}
for _, words in ipairs(trials) do
    local reply = redis.pcall(unpack(words))
    if type(reply) == 'table' and reply.err then
        redis.pcall('unlink', key) -- the user may lack one of the two
        redis.pcall('del', key)
        return {words[1], reply.err}
    end
end
return {}
